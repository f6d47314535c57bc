import {Connection} from './world';
import {failure, World} from './things';

describe('a job that is decided', () => {
  const decided = async (): Promise<World> => {
    const world = await new World().open();
    world.script.decided = true;
    return world;
  };

  it('answers with its first commit, acts behind the answer, and keeps its target until it has', async () => {
    const world = await decided();
    world.script.act = () => world.clock.sleep(30_000);
    const workflow = world.runner();
    await expect(world.make(workflow)).resolves.toEqual({first: {n: 1}});
    expect(await world.jobs()).toMatchObject([{execution: 'running', steps: [{step: 'reserve', state: 'succeeded'}, {step: 'act', state: 'started'}]}]);
    expect(await world.locks()).toHaveLength(1);
    await expect(world.clock.until(workflow.wait((await world.jobs())[0]!.id))).resolves.toMatchObject({execution: 'succeeded', result: {first: {n: 1}}});
    expect(await world.locks()).toEqual([]);
  });

  it('tries the act until it works, whatever it is told, and never undoes', async () => {
    const world = await decided();
    world.script.act = async (ctx) => (ctx.attempt <= 40 ? failure('internal')() : 'at last');
    const workflow = world.runner();
    await world.make(workflow);
    await expect(world.clock.until(workflow.wait((await world.jobs())[0]!.id, 3600_000))).resolves.toMatchObject({execution: 'succeeded'});
    expect(world.script.log).toEqual(['plan', ...Array.from({length: 41}, (_, n) => `act 1.${n + 1}`)]);
  });

  it('takes no cancel any more', async () => {
    const world = await decided();
    world.script.act = async (ctx) => (ctx.attempt === 1 ? failure('internal')() : undefined);
    const workflow = world.runner();
    await world.make(workflow);
    const [job] = await world.jobs();
    await workflow.cancel(job!.id);
    await expect(world.clock.until(workflow.wait(job!.id))).resolves.toMatchObject({execution: 'succeeded'});
  });

  it('is refused as ever before that', async () => {
    const world = await decided();
    await world.store.put('things', 'other', {n: 1, owner: 'me'});
    await expect(world.make(world.runner(), {id: 'a', owner: 'me'})).rejects.toMatchObject({kind: 'conflict', message: 'taken: me'});
    expect(await world.locks()).toEqual([]);
  });

  it('goes on in another process when this one dies behind the answer', async () => {
    const world = await decided();
    const dying = new Connection(world.store);
    world.script.act = async (ctx) => {
      if (ctx.epoch === 1) await world.clock.sleep(1000).then(() => dying.kill());
    };
    await expect(world.make(world.runner({}, dying))).resolves.toEqual({first: {n: 1}});
    const heir = world.runner();
    await heir.start();
    await expect(world.clock.until(heir.wait((await world.jobs())[0]!.id))).resolves.toMatchObject({execution: 'succeeded'});
    expect(world.script.log).toEqual(['plan', 'act 1.1', 'act 2.1']);
    await world.clock.until(heir.stop());
  });
});
