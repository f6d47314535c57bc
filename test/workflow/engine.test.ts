import {CetusError} from '../../lib/base/errors';
import type {BatchOp} from '../../lib/moray/moray';
import type {Job} from '../../lib/schema/job';
import {failure, World} from './things';
import {Connection} from './world';

describe('the fast path', () => {
  it('plans, acts and plans in two commits, and leaves neither lock nor lease', async () => {
    const world = await new World().open();
    const connection = new Connection(world.store);
    world.script.act = async (ctx) => {
      const [job] = await world.jobs();
      expect(job!.steps.map((s) => [s.step, s.state])).toEqual([['reserve', 'succeeded'], ['act', 'started']]);
      expect((await world.locks()).map((l) => l.jobId)).toEqual([ctx.job.id]);
      return {answer: 42};
    };
    await expect(world.make(world.runner({}, connection))).resolves.toEqual({made: 'a', saw: {answer: 42}});
    expect(connection.writes).toBe(2);
    expect(await world.locks()).toEqual([]);
    expect(await world.jobs()).toMatchObject([{execution: 'succeeded', lease: null, result: {made: 'a'}}]);
  });

  it.each([['gone', undefined], ['another job\'s', '00000000-0000-4000-8000-00000000beef']])('ends also where an operator\'s hand has been at its lock: %s', async (_what, jobId) => {
    const world = await new World().open();
    world.script.act = async (ctx) => {
      await world.store.delete('locks', ctx.job.target);
      if (jobId) await world.store.put('locks', ctx.job.target, {target: ctx.job.target, jobId, takenAt: ''});
    };
    await expect(world.make(world.runner())).resolves.toMatchObject({made: 'a'});
    expect(await world.jobs()).toMatchObject([{execution: 'succeeded', lease: null}]);
    expect((await world.locks()).map((l) => l.jobId)).toEqual(jobId ? [jobId] : []);
    expect(world.script.log).toEqual(['plan', 'act 1.1']);
  });

  it('hands secrets to the steps and writes them nowhere', async () => {
    const world = await new World().open();
    let seen: unknown;
    world.script.act = async (ctx) => { seen = ctx.secrets; };
    await world.make(world.runner(), {id: 'a'}, {secrets: {password: 'hunter2'}});
    expect(seen).toEqual({password: 'hunter2'});
    expect(JSON.stringify(await world.jobs())).not.toContain('hunter2');
  });
});

describe('failure', () => {
  it('undoes in reverse, frees the target and throws the step\'s own error', async () => {
    const world = await new World().open();
    world.script.act = failure('conflict', 'port is already allocated');
    await expect(world.make(world.runner())).rejects.toMatchObject({kind: 'conflict', message: 'port is already allocated'});
    expect(world.script.log).toEqual(['plan', 'act 1.1', 'unact', 'unplan']);
    expect(await world.things()).toEqual([]);
    expect(await world.locks()).toEqual([]);
    expect(await world.jobs()).toMatchObject([{execution: 'failed', error: {message: 'port is already allocated'}}]);
  });

  it('records a refusal by the first plan as a failed job, without ever taking the lock', async () => {
    const world = await new World().open();
    await world.store.put('things', 'x', {n: 1, owner: 'me'});
    await expect(world.make(world.runner(), {id: 'a', owner: 'me'})).rejects.toMatchObject({message: 'taken: me'});
    expect(await world.jobs()).toMatchObject([{execution: 'failed', error: {kind: 'conflict'}}]);
    expect(await world.locks()).toEqual([]);
  });

  it('tries an act again where the node did not answer, and only then', async () => {
    const world = await new World().open();
    let tries = 0;
    world.script.act = async () => {
      tries += 1;
      if (tries < 3) throw new CetusError('unavailable', 'gone');
    };
    await world.make(world.runner());
    expect(tries).toBe(3);
  });

  it('ends an act that takes too long', async () => {
    const world = await new World().open();
    world.script.act = () => new Promise(() => undefined);
    await expect(world.make(world.runner())).rejects.toMatchObject({kind: 'timeout'});
    expect(await world.things()).toEqual([]);
  });

  it('is stuck when an undo keeps failing, keeps the lock, and goes on when told', async () => {
    const world = await new World().open();
    const workflow = world.runner();
    await workflow.start();
    world.script.act = failure();
    world.script.undoAct = failure('internal', 'cannot');
    await expect(world.make(workflow)).rejects.toMatchObject({kind: 'conflict', info: {execution: 'stuck'}});
    const [job] = await world.jobs();
    expect(job).toMatchObject({execution: 'stuck', steps: [{}, {state: 'undo-failed', tries: 6}]});
    expect(await world.locks()).toHaveLength(1);
    // However patient who comes next is, he is told.
    const askedMs = world.clock.now();
    await expect(world.make(workflow, undefined, {lockWaitMs: 3_600_000})).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining(`${job!.id} (stuck)`)});
    expect(world.clock.now() - askedMs).toBeLessThan(60_000);
    world.script.undoAct = undefined;
    await workflow.retryStuck(job!.id);
    await expect(world.clock.until(workflow.wait(job!.id))).resolves.toMatchObject({execution: 'failed'});
    expect(await world.locks()).toEqual([]);
    expect(await world.things()).toEqual([]);
    await world.clock.until(workflow.stop());
  });

  it('waits long for a node that is away, answers who asked meanwhile, and takes everything back when it returns', async () => {
    const world = await new World().open();
    const workflow = world.runner();
    await workflow.start();
    const away = async (): Promise<never> => { throw new CetusError('unavailable', 'node alpha is lost'); };
    world.script.act = away;
    world.script.undoAct = away;
    const from = world.clock.now();
    await expect(world.make(workflow)).rejects.toMatchObject({kind: 'unavailable', message: 'node alpha is lost', info: {execution: 'unwinding'}});
    expect(world.clock.now() - from).toBeLessThan(10_000);
    await world.clock.pass(5 * 60_000);
    expect(await world.jobs()).toMatchObject([{execution: 'unwinding'}]);
    expect(await world.locks()).toHaveLength(1);
    world.script.undoAct = undefined;
    const [job] = await world.jobs();
    await expect(world.clock.until(workflow.wait(job!.id))).resolves.toMatchObject({execution: 'failed', error: {message: 'node alpha is lost'}});
    expect(await world.locks()).toEqual([]);
    expect(await world.things()).toEqual([]);
    await world.clock.until(workflow.stop());
  });
});

describe('the target\'s lock', () => {
  it('lets one job at a time through, in the order of asking', async () => {
    const world = await new World().open();
    const workflow = world.runner();
    let inside = 0;
    const order: unknown[] = [];
    world.script.act = async (ctx) => {
      expect((inside += 1)).toBe(1);
      await world.clock.sleep(100);
      inside -= 1;
      order.push(ctx.requestId);
    };
    await world.clock.until(Promise.all(['1', '2', '3', '4'].map((requestId) => workflow.run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId}))));
    expect(order).toEqual(['1', '2', '3', '4']);
  });

  it('is waited for across processes, then refused with the name of the holder', async () => {
    const world = await new World().open();
    world.script.act = () => world.clock.sleep(40_000);
    const first = world.runner().run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r'});
    await world.clock.pass(10);
    const [holder] = await world.jobs();
    const second = world.runner();
    await expect(world.make(second, {id: 'a'}, {lockWaitMs: 5000})).rejects.toMatchObject({kind: 'conflict', message: expect.stringContaining(holder!.id)});
    await world.clock.until(Promise.all([first, second.run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r', lockWaitMs: 60_000})]));
    expect((await world.store.get<{n: number}>('things', 'a')).value.n).toBe(2);
  });
});

it('who waits for a target is told so, once, at the store\'s lock as in line before it; who need not wait is not', async () => {
  const world = await new World().open();
  world.script.act = () => world.clock.sleep(10_000);
  const told: string[] = [];
  const other = world.runner();
  const begin = (runner: typeof other, requestId: string): Promise<unknown> =>
    runner.run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId, lockWaitMs: 3_600_000, onWaiting: () => told.push(requestId)});
  const jobs = [begin(world.runner(), 'first')];
  await world.clock.pass(10);
  jobs.push(begin(other, 'at the lock'), begin(other, 'in line'));
  await world.clock.pass(10);
  expect(told.sort()).toEqual(['at the lock', 'in line']);
  await world.clock.until(Promise.all(jobs));
  expect(told).toHaveLength(2);
});

it('who leaves while the target is another\'s waits for it no longer, at the store\'s lock and in line before it', async () => {
  const world = await new World().open();
  world.script.act = () => world.clock.sleep(40_000);
  const first = world.runner().run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r'});
  await world.clock.pass(10);
  const other = world.runner();
  const leaving = new AbortController();
  const waiting = ['at the lock', 'in line'].map((requestId) => other.run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId, lockWaitMs: 3_600_000, signal: leaving.signal}).then(() => 'made', (err: CetusError) => err.kind));
  await world.clock.pass(10);
  leaving.abort(new Error('the client left'));
  await world.clock.pass(10);
  expect(await Promise.all(waiting)).toEqual(['canceled', 'canceled']);
  expect((await world.jobs()).map(({execution}) => execution)).toEqual(['running']);
  await world.clock.until(first);
});

describe('others\' writes', () => {
  it('makes a plan decide again when what it read has changed', async () => {
    const world = await new World().open();
    const connection = new Connection(world.store);
    let meddled = 0;
    connection.onWrite = () => {
      if ((meddled += 1) > 3) return;
      void world.store.put('things', 'a', {n: 10 * meddled});
    };
    await world.make(world.runner({}, connection));
    expect((await world.store.get<{n: number}>('things', 'a')).value.n).toBe(31);
    expect(world.script.log.filter((l) => l === 'plan')).toHaveLength(4);
    expect(world.script.log.filter((l) => l.startsWith('act'))).toHaveLength(1);
  });

  it('gives up after a bounded number of times, with nothing left', async () => {
    const world = await new World().open();
    const connection = new Connection(world.store);
    connection.onWrite = (ops: BatchOp[]) => {
      if (ops.some((op) => op.bucket === 'things')) void world.store.put('things', 'a', {n: 1});
    };
    await expect(world.make(world.runner({}, connection))).rejects.toMatchObject({kind: 'unavailable'});
    expect(await world.locks()).toEqual([]);
    expect(world.script.log).not.toContain('act 1.1');
  });
});

describe('cancel', () => {
  it('is seen between steps, and what was done is undone', async () => {
    const world = await new World().open();
    const workflow = world.runner();
    world.script.act = async (ctx) => {
      await workflow.cancel(ctx.job.id);
    };
    await expect(world.make(workflow)).rejects.toMatchObject({kind: 'canceled'});
    expect(world.script.log).toEqual(['plan', 'act 1.1', 'unact', 'unplan']);
    expect(await world.jobs()).toMatchObject([{execution: 'canceled'}]);
    expect(await world.locks()).toEqual([]);
  });

  it('interrupts an act that allows it, when whoever asked for the job leaves', async () => {
    const world = await new World().open();
    const leaving = new AbortController();
    let aborted = false;
    world.script.interruptible = true;
    world.script.act = (ctx) => new Promise((_resolve, reject) => {
      ctx.signal.addEventListener('abort', () => { aborted = true; reject(ctx.signal.reason as Error); });
      setImmediate(() => leaving.abort());
    });
    const job = world.runner().run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r', signal: leaving.signal});
    await expect(job).rejects.toMatchObject({kind: 'canceled'});
    expect(aborted).toBe(true);
    expect(world.script.log).toEqual(['plan', 'act 1.1', 'unact', 'unplan']);
    expect(await world.jobs()).toMatchObject([{execution: 'canceled'}]);
    expect(await world.locks()).toEqual([]);
    await expect(world.runner().run({workflow: 'thing.make', account: 'default', params: {id: 'b'}, requestId: 'r', signal: leaving.signal})).rejects.toMatchObject({kind: 'canceled'});
    expect(await world.jobs()).toHaveLength(1);
  });

  it('waits for the end of an act that does not', async () => {
    const world = await new World().open();
    const leaving = new AbortController();
    world.script.act = async (ctx) => {
      leaving.abort();
      ctx.signal.throwIfAborted();
    };
    await expect(world.runner().run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r', signal: leaving.signal})).rejects.toMatchObject({kind: 'canceled'});
    expect(world.script.log).toEqual(['plan', 'act 1.1', 'unact', 'unplan']);
  });

  it('ends a job that nobody runs yet, and refuses one that has ended', async () => {
    const world = await new World().open();
    const workflow = world.runner();
    const job = await workflow.enqueue({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r'});
    await workflow.cancel(job.id);
    await workflow.start();
    await expect(world.clock.until(workflow.wait(job.id))).resolves.toMatchObject({execution: 'canceled'});
    expect(world.script.log).toEqual([]);
    await expect(workflow.cancel(job.id)).rejects.toMatchObject({kind: 'conflict'});
    await world.clock.until(workflow.stop());
  });
});

describe('takeover', () => {
  it('resumes at the first step without an outcome, in the next epoch, without the secrets', async () => {
    const world = await new World().open();
    const dying = new Connection(world.store);
    const seen: unknown[] = [];
    world.script.act = async (ctx) => {
      seen.push([ctx.epoch, ctx.secrets]);
      if (ctx.epoch === 1) dying.kill();
      return 'done';
    };
    void world.runner({}, dying).run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r', secrets: 's'});
    const heir = world.runner();
    await heir.start();
    await world.clock.pass(100);
    const [job] = await world.jobs();
    await expect(world.clock.until(heir.wait(job!.id))).resolves.toMatchObject({execution: 'succeeded', result: {saw: 'done'}});
    expect(seen).toEqual([[1, 's'], [2, undefined]]);
    expect(world.script.log.filter((l) => l === 'plan')).toHaveLength(1);
    await world.clock.until(heir.stop());
  });

  it('happens at once for a process that comes back under its old name', async () => {
    const world = await new World().open();
    const dying = new Connection(world.store);
    world.script.act = async (ctx) => {
      if (ctx.epoch === 1) dying.kill();
    };
    void world.runner({runnerId: 'me'}, dying).run({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r'});
    await world.clock.pass(1);
    const again = world.runner({runnerId: 'me', resumeOwn: true});
    const startedMs = world.clock.now();
    await again.start();
    await world.clock.until(again.wait((await world.jobs())[0]!.id));
    expect(world.clock.now() - startedMs).toBeLessThan(1000);
    await world.clock.until(again.stop());
  });

  it('does not happen while the lease is renewed', async () => {
    const world = await new World().open();
    world.script.act = () => world.clock.sleep(50_000);
    const other = world.runner();
    await other.start();
    await world.make(world.runner());
    expect(world.script.log.filter((l) => l.startsWith('act'))).toEqual(['act 1.1']);
    await world.clock.until(other.stop());
  });

  it('makes a runner that slept through its lease stop without a word', async () => {
    const world = await new World().open();
    const sleepy = new Connection(world.store);
    const asleep = world.runner({}, sleepy);
    let stole = false;
    world.script.act = async (ctx) => {
      if (ctx.epoch > 1) return 'second';
      // Somebody takes the job while we are at it.
      const stored = await world.store.get<Job>('jobs', ctx.job.id);
      await world.store.put('jobs', ctx.job.id, {...stored.value, lease: {runner: 'gone', epoch: 2, untilMs: world.clock.now() - 1}}, {etag: stored.etag});
      stole = true;
      return 'first';
    };
    const heir = world.runner();
    await heir.start();
    await expect(world.make(asleep)).resolves.toEqual({made: 'a', saw: 'second'});
    expect(stole).toBe(true);
    await world.clock.until(heir.stop());
  });

  it('leaves jobs of unknown workflows alone', async () => {
    const world = await new World().open();
    const workflow = world.runner();
    const job = await workflow.enqueue({workflow: 'thing.make', account: 'default', params: {id: 'a'}, requestId: 'r'});
    const stored = await world.store.get<Job>('jobs', job.id);
    await world.store.put('jobs', job.id, {...stored.value, version: 7});
    await workflow.start();
    await world.clock.pass(5000);
    await expect(workflow.get(job.id)).resolves.toMatchObject({execution: 'queued', lease: null});
    await world.clock.until(workflow.stop());
  });
});

describe('a store that does not answer', () => {
  it.each(['unheard-before', 'unheard-after'] as const)('%s: every commit of the fast path is found out about', async (fate) => {
    for (const n of [1, 2]) {
      const world = await new World().open();
      const connection = new Connection(world.store).doom(n, fate);
      await expect(world.make(world.runner({}, connection))).resolves.toMatchObject({made: 'a'});
      expect((await world.store.get<{n: number}>('things', 'a')).value.n).toBe(1);
      expect(world.script.log.filter((l) => l.startsWith('act'))).toHaveLength(1);
      expect(await world.locks()).toEqual([]);
    }
  });
});

describe('waiting and retention', () => {
  it('ends with timeout where the job goes on', async () => {
    const world = await new World().open();
    world.script.act = () => world.clock.sleep(30_000);
    const workflow = world.runner();
    await expect(world.make(workflow, {id: 'a'}, {deadlineMs: 1000})).rejects.toMatchObject({kind: 'timeout'});
    await expect(world.clock.until(workflow.wait((await world.jobs())[0]!.id))).resolves.toMatchObject({execution: 'succeeded'});
  });

  it('deletes jobs that ended long ago, and never a stuck one', async () => {
    const world = await new World().open();
    const workflow = world.runner({retentionMs: 3600_000});
    await world.make(workflow, {id: 'a'});
    world.script.act = failure();
    world.script.undoAct = failure();
    await expect(world.make(workflow, {id: 'b'})).rejects.toThrow();
    await workflow.start();
    await world.clock.pass(3 * 3600_000);
    expect((await world.jobs()).map((j) => j.execution)).toEqual(['stuck']);
    await world.clock.until(workflow.stop());
  });
});
