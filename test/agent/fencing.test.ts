/** An agent that loses its lease, and one that comes back: over the fake runtime, with a clock of its own that tests move. */
import {systemClock} from '../../lib/base/clock';
import {CetusError} from '../../lib/base/errors';
import {HttpAgentClient} from '../../lib/fleet/agent-client';
import type {AssignmentAnswer, AssignmentQuestion, Heartbeat, HeartbeatAnswer, TaskOutput} from '../../lib/schema/agent';
import type {NodeFacts} from '../../lib/schema/node';
import {RecordingSink, task, TestNode, until} from './node';

/** A control plane that can be cut off, and one that fences. */
class FencingSink extends RecordingSink {
  cut = false;
  fencedGeneration = 0;
  joins: number[] = [];
  questions: string[][] = [];
  moved: string[] = [];
  unknown: string[] = [];
  fenceAfterMs = 300;

  override async join(facts?: NodeFacts): Promise<{nodeId: string}> {
    this.reach();
    if (facts!.bootGeneration <= this.fencedGeneration) throw new CetusError('stale', 'fenced', {info: {fenced: true}});
    this.joins.push(facts!.bootGeneration);
    return {nodeId: 'n1'};
  }
  override async heartbeat(beat?: Heartbeat): Promise<HeartbeatAnswer> {
    this.reach();
    if (beat!.bootGeneration <= this.fencedGeneration) throw new CetusError('stale', 'fenced', {info: {fenced: true}});
    return {leaseMs: 60, fenceAfterMs: this.fenceAfterMs};
  }
  async assignments({containers}: AssignmentQuestion): Promise<AssignmentAnswer> {
    this.reach();
    this.questions.push([...containers].sort());
    return {own: containers.filter((id) => !this.moved.includes(id) && !this.unknown.includes(id)), moved: containers.filter((id) => this.moved.includes(id))};
  }
  private reach(): void {
    if (this.cut) throw new CetusError('unavailable', 'cut off');
  }
}

class FencedNode extends TestNode {
  override readonly sink = new FencingSink();
  private marks: {reschedule: boolean} = {reschedule: true};

  async run(id: string, reschedule: boolean): Promise<void> {
    this.marks = {reschedule};
    await this.create(id, ['sleep', '1000'], {hostConfig: {RestartPolicy: {Name: 'always'}}});
    await until('permitted', () => this.task({kind: 'container.start', containerId: id, networks: [], attachments: [], ports: [], ...this.marks}).then(() => true, (err: CetusError) => {
      if (err.kind !== 'unavailable') throw err;
      return false;
    }));
  }
  async kinds(id: string): Promise<string> {
    return (await this.runtime.state(id)).status;
  }
}

describe('an agent under a lease', () => {
  let node: FencedNode;

  beforeEach(async () => {
    node = await new FencedNode(systemClock).boot() as FencedNode;
  });
  afterEach(() => node.end());

  test('cut off, it stops what is marked and nothing else; when it is heard again, what it stopped runs again, and nobody was asked twice', async () => {
    node.agent.report();
    await node.run('marked', true);
    await node.run('plain', false);
    node.sink.cut = true;
    await until('stopped', () => node.status('marked') === 'restarting');
    await until('it is dead', async () => await node.kinds('marked') !== 'running');
    expect(node.status('plain')).toBe('running');
    await expect(node.start('marked')).rejects.toMatchObject({kind: 'unavailable'});
    // Long after its back-off would have brought it back.
    await systemClock.sleep(600);
    expect(node.status('marked')).toBe('restarting');
    const questions = node.sink.questions.length;
    node.sink.cut = false;
    await until('it runs again', () => node.status('marked') === 'running');
    expect(node.sink.questions).toHaveLength(questions);
    expect(node.sink.joins).toEqual([1]);
    expect(node.status('plain')).toBe('running');
  });

  test('a life that was fenced is over: the next one asks, removes what moved, starts what is its own, and leaves alone what nobody knows', async () => {
    node.agent.report();
    for (const id of ['kept', 'moved', 'unknown']) await node.run(id, true);
    node.sink.moved = ['moved'];
    node.sink.unknown = ['unknown'];
    node.sink.fencedGeneration = 1;
    await until('joined anew', () => node.sink.joins.includes(2));
    await until('its own runs again', () => node.status('kept') === 'running' && node.sink.questions.some((ids) => ids.length === 3));
    await until('what moved is gone', () => !node.agent.supervisor.units.has('moved'));
    expect(await node.kinds('moved')).toBe('none');
    await systemClock.sleep(500);
    expect(node.status('unknown')).toBe('restarting');
    expect(node.agent.facts.bootGeneration).toBe(2);
  });

  test('a start that comes between the joining and the first lease waits for it; without one it is refused after a while', async () => {
    await node.create('early', ['sleep', '1000'], {hostConfig: {RestartPolicy: {Name: 'always'}}});
    await node.create('vain', ['sleep', '1000'], {hostConfig: {RestartPolicy: {Name: 'always'}}});
    const start = (containerId: string): Promise<TaskOutput> => node.task({kind: 'container.start', containerId, networks: [], attachments: [], ports: [], reschedule: true});
    node.sink.cut = true;
    node.agent.report();
    await expect(start('vain')).rejects.toMatchObject({kind: 'unavailable'});
    const early = start('early');
    await systemClock.sleep(50);
    node.sink.cut = false;
    await early;
    expect(node.status('early')).toBe('running');
  });

  test('an order of a life that was fenced is not done, however late it comes; one of the next life is', async () => {
    node.agent.report();
    const url = await node.listen();
    const asked = (life: number): HttpAgentClient => new HttpAgentClient('node-1', url, undefined, undefined, () => life);
    const [late, timely] = [asked(1), asked(2)];
    const order = (client: HttpAgentClient, step: string): Promise<TaskOutput> => client.task(task({kind: 'volume.ensure', volumeId: step, name: step, account: 'a', options: {}}, {step}));
    try {
      await order(late, 'before');
      node.sink.fencedGeneration = 1;
      await until('joined anew', () => node.sink.joins.includes(2));
      await expect(order(late, 'after')).rejects.toMatchObject({kind: 'stale', message: expect.stringContaining('boot generation 1')});
      expect((await timely.inventory()).volumes).toEqual(['before']);
      await order(timely, 'next');
      expect((await timely.inventory()).volumes).toEqual(['before', 'next']);
    } finally {
      await Promise.all([late.close(), timely.close()]);
    }
  });

  test('an agent that starts with containers of an older assignment starts none of them before it has asked', async () => {
    node.agent.report();
    await node.run('mine', true);
    await node.run('moved', true);
    await node.agent.close();
    // The machine was rebooted: nothing runs, and the restart policies would bring both back.
    for (const id of ['mine', 'moved']) {
      await node.runtime.kill(id, '', 9);
      await until('dead', async () => await node.kinds(id) === 'stopped');
      await node.runtime.deleteTask(id);
    }
    node.sink.cut = true;
    node.sink.moved = ['moved'];
    await node.boot('boot-2');
    node.agent.report();
    await systemClock.sleep(500);
    expect([await node.kinds('mine'), await node.kinds('moved')]).toEqual(['none', 'none']);
    node.sink.cut = false;
    await until('its own runs', () => node.status('mine') === 'running');
    await until('the other is gone', () => !node.agent.supervisor.units.has('moved'));
  });

  test('a start that is under way when the lease ends lets nothing go', async () => {
    node.agent.report();
    await node.run('other', true);
    await node.create('late', ['sleep', '1000'], {hostConfig: {RestartPolicy: {Name: 'always'}}});
    const create = node.runtime.createTask.bind(node.runtime);
    node.runtime.createTask = async (...of: Parameters<typeof create>) => {
      const made = await create(...of);
      node.sink.cut = true;
      await until('the lease has ended', () => node.status('other') === 'restarting');
      return made;
    };
    await expect(node.task({kind: 'container.start', containerId: 'late', networks: [], attachments: [], ports: [], reschedule: true})).rejects.toMatchObject({kind: 'unavailable'});
    node.runtime.createTask = create;
    expect(await node.kinds('late')).not.toBe('running');
  });

  test('a node that nobody fences runs what is marked whoever answers', async () => {
    node.sink.heartbeat = async () => ({leaseMs: 60});
    node.agent.report();
    await node.run('marked', true);
    node.sink.cut = true;
    await systemClock.sleep(600);
    expect(node.status('marked')).toBe('running');
  });
});
