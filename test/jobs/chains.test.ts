/**
 * Every chain of the register, whatever it is: each order to a node lost, doubled, answered late or refused; each undo repeated; the process
 * killed before and after each write, alone and on top of a failure; the store's answers lost; a cancel after each write. Afterwards nothing
 * may be left over, and the datacenter is as it was or as it should be, never in between.
 */
import {CHAINS} from '../../lib/jobs/chains/index';
import type {ChainName} from '../../lib/schema/chains';
import type {Job} from '../../lib/schema/job';
import {Connection, type Fate} from '../workflow/world';
import {SCENES, VARIANTS, type Scene} from './scenarios';
import {ACCOUNT, Datacenter, type CallFate} from './world';

interface Trouble {
  /** the nth order to the node (undo included) */
  calls?: [number, CallFate][];
  /** the nth write of the accepting process */
  writes?: [number, Fate][];
  /** somebody cancels after the nth write */
  cancelAfter?: number;
  /** reports reach the store while the chain runs */
  prompt?: boolean;
}

interface Outcome { result?: unknown; error?: {kind: string; message: string}; writes: number; calls: number; leaks: string[]; digest: string; before: string; events: string[]; job: Job | undefined; died: boolean }

async function play(name: ChainName, scene: Scene<ChainName>, trouble: Trouble): Promise<Outcome> {
  const dc = await new Datacenter(trouble.prompt).open();
  await scene.prepare(dc);
  await dc.settle();
  const before = JSON.stringify(await dc.digest());
  const earlierEvents = (await dc.events()).length;
  const earlierJobs = new Set((await dc.jobs()).map((j) => j.id));
  const callsBefore = dc.doomed.calls;
  for (const [n, fate] of trouble.calls ?? []) dc.doomed.fates.set(callsBefore + n, fate);
  const connection = new Connection(dc.store);
  for (const [n, fate] of trouble.writes ?? []) connection.doom(n, fate);
  if (trouble.cancelAfter !== undefined) {
    connection.onWrite = async () => {
      if (connection.writes === trouble.cancelAfter! + 1) await cancel();
    };
  }
  const heir = dc.runner();
  const cancel = async (): Promise<void> => {
    const mine = (await dc.jobs()).find((j) => !earlierJobs.has(j.id));
    if (mine) await heir.cancel(mine.id).catch(() => undefined);
  };
  await heir.start();
  const outcome: Partial<Outcome> = {};
  const run = dc.runner(connection).run({workflow: name, account: ACCOUNT, params: scene.params(dc), requestId: 'r', secrets: scene.secrets?.()})
    .then((result) => { outcome.result = result; }, (error: Outcome['error']) => { outcome.error = error; });
  await dc.clock.until(Promise.race([run, connection.died]));
  const ended = async (): Promise<boolean> => (await dc.jobs()).every((j) => ['succeeded', 'failed', 'canceled', 'stuck'].includes(j.execution));
  for (let n = 0; n < 120 && !(await ended()); n += 1) await dc.clock.pass(1000);
  await dc.settle();
  if (scene.oneWay && trouble.calls?.some(([, fate]) => fate === 'done')) {
    // A node that did it, says that it did not, and cannot take it back: what is left must at least be finished by asking again.
    dc.doomed.heal();
    await dc.clock.until(dc.runner().run({workflow: name, account: ACCOUNT, params: scene.params(dc), requestId: 'again', secrets: scene.secrets?.()}).catch(() => undefined));
    await dc.settle();
  }
  await dc.clock.until(heir.stop());
  const lied = Boolean(trouble.calls?.some(([, fate]) => fate === 'done'));
  const leaks = await dc.leaks({blobs: Boolean(scene.needsRequest) && (connection.dead || Boolean(trouble.calls))});
  return {
    ...outcome, writes: connection.writes, calls: dc.doomed.calls - callsBefore, leaks: leaks.filter((l) => !(lied && scene.tolerated !== undefined && l.startsWith(scene.tolerated))),
    digest: JSON.stringify(await dc.digest()), before, events: (await dc.events()).slice(earlierEvents), job: (await dc.jobs()).find((j) => !earlierJobs.has(j.id)), died: connection.dead,
  };
}

async function tryAll(name: ChainName, scene: Scene<ChainName>, plain: Outcome, troubles: Trouble[]): Promise<void> {
  for (const [n, trouble] of troubles.entries()) {
    const outcome = await play(name, scene, {prompt: n % 2 === 1, ...trouble});
    const story = {trouble, leaks: outcome.leaks};
    expect(story).toEqual({trouble, leaks: []});
    const refused = trouble.calls?.some(([, fate]) => fate === 'refuse' || fate === 'done');
    if (outcome.job?.execution === 'succeeded') {
      // A one-way chain may go on without what a node refuses (an anonymous volume that cannot be removed).
      if (!(scene.oneWay && refused)) expect({trouble, digest: outcome.digest}).toEqual({trouble, digest: plain.digest});
    } else if (!scene.oneWay) expect({trouble, digest: outcome.digest}).toEqual({trouble, digest: outcome.before});
    if (!outcome.died) expect(outcome.error === undefined).toBe(outcome.job?.execution === 'succeeded');
  }
}

const range = (n: number): number[] => Array.from({length: n}, (_, i) => i + 1);

it('has a scene for every chain of the register', () => {
  expect(CHAINS.map((c) => c.name).sort()).toEqual(Object.keys(SCENES).sort());
});

const ALL = [...CHAINS.map(({name}) => ({name: name as ChainName, as: name, scene: SCENES[name as ChainName] as Scene<ChainName>})), ...VARIANTS];

describe.each(ALL)('$as', ({name, scene}) => {
  let plain: Outcome;
  beforeAll(async () => { plain = await play(name, scene, {}); });

  it('succeeds, in two commits or fewer unless it orders twice', () => {
    expect(plain.error).toBeUndefined();
    expect(plain.leaks).toEqual([]);
    expect(plain.digest === plain.before).toBe(name === 'container.restart');
    // One that moves comes to a node that has not had the image: that is counted in a write of its own, which chains share.
    expect(plain.writes).toBeLessThanOrEqual(name === 'container.move' ? 4 : name === 'container.restart' ? 3 : 2);
  });

  it('leaves its events, once each, and those of the node', async () => {
    const {events, leaks} = await play(name, scene, {prompt: true});
    expect(leaks).toEqual([]);
    expect([...events].sort()).toEqual([...scene.events].sort());
  });

  it('survives orders that are lost, answered too late, doubled or refused', () =>
    tryAll(name, scene, plain, range(plain.calls).flatMap((n) => (['before', 'after', 'twice', 'refuse', 'done'] as const).map((fate): Trouble => ({calls: [[n, fate]]})))));

  it('survives the same of every undo', async () => {
    const troubles: Trouble[] = [];
    for (const failing of range(plain.calls).flatMap((n): [number, CallFate][] => [[n, 'refuse'], [n, 'done']])) {
      const failed = await play(name, scene, {calls: [failing]});
      for (const n of range(failed.calls).filter((k) => k > failing[0]))
        for (const fate of ['before', 'after', 'twice', 'refuse'] as const) troubles.push({calls: [failing, [n, fate]]});
    }
    await tryAll(name, scene, plain, troubles);
  });

  it('survives a death before and after every write', () =>
    tryAll(name, scene, plain, range(plain.writes).flatMap((n) => (['die-before', 'die-after'] as const).flatMap((fate) => [{writes: [[n, fate]]}, {writes: [[n, fate]], prompt: true}] as Trouble[]))));

  it('survives a death in the middle of unwinding', async () => {
    for (const failing of range(plain.calls).flatMap((n): [number, CallFate][] => [[n, 'refuse'], [n, 'done']])) {
      const failed = await play(name, scene, {calls: [failing]});
      await tryAll(name, scene, plain, range(failed.writes).flatMap((n) => (['die-before', 'die-after'] as const).map((fate): Trouble => ({calls: [failing], writes: [[n, fate]]}))));
    }
  });

  it('survives a store whose answers are lost', () =>
    tryAll(name, scene, plain, range(plain.writes).flatMap((n) => (['unheard-before', 'unheard-after'] as const).map((fate): Trouble => ({writes: [[n, fate]]})))));

  it('survives a cancel after every write', () => tryAll(name, scene, plain, range(plain.writes).map((cancelAfter): Trouble => ({cancelAfter}))));
});
