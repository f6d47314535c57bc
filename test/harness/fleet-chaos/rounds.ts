/** Rounds of faults against one fleet whose clients never stop; after each, everything that was acknowledged is accounted for. */
import {busyboxArchive} from '../busybox';
import {NOTHING_LEFT} from '../cetus';
import {TestFleet} from '../fleet';
import {until} from '../wait';
import {type Fault, livenessOf, type Scene} from './faults';
import {type Entry, Load} from './load';
import {runningOn, Watcher} from './running';
import {seeded} from '../seeded';

export interface Round { fault: string; wholeMs: number; standing: number }
interface Shown { id: string; name: string; node: string; status: string; moving?: object; observation: {error: string; exitCode: number} }

const ENDED = ['succeeded', 'failed', 'canceled'];
const WHOLE_MS = 150_000;
const EMPTY_BUCKETS = ['containers', 'addresses', 'ports', 'locks', 'volumes', 'remains'] as const;

export class FleetChaos {
  readonly rounds: Round[] = [];
  private readonly load: Load;
  private readonly watcher: Watcher;
  private readonly scene: Scene;

  private constructor(readonly fleet: TestFleet, random: () => number, private readonly empty: Record<string, number>[]) {
    this.load = new Load(fleet, random);
    this.watcher = new Watcher(fleet);
    this.scene = {fleet, load: this.load, watcher: this.watcher, ended: new Set(), dice: (most) => 1 + Math.floor(random() * most)};
  }

  static async start({nodes = 4, seed, lease}: {nodes?: number; seed: number; lease: string}): Promise<FleetChaos> {
    const fleet = new TestFleet({nodes, endpoints: 2, args: ['--lease', lease]});
    try {
      await fleet.up();
      await fleet.ok(['load', '-i', await busyboxArchive()]);
      // Every node has the image from now on.
      for (const {name} of fleet.nodes) await fleet.ok(['run', '--rm', '-e', `constraint:node==${name}`, 'busybox', 'true']);
      const chaos = new FleetChaos(fleet, seeded(seed), await fleet.allMarks());
      chaos.watcher.start();
      return chaos;
    } catch (err) {
      await fleet.destroy().catch(() => fleet.stop());
      throw err;
    }
  }

  /** Throws with everything that is wrong. */
  async round(fault: Fault): Promise<Round> {
    this.scene.ended.clear();
    this.load.start();
    try {
      await fault.run(this.scene);
    } finally {
      await this.load.pause();
    }
    const overMs = performance.now();
    await this.whole();
    const round = {fault: fault.name, wholeMs: Math.round(performance.now() - overMs), standing: this.load.sure().length};
    await this.check();
    this.rounds.push(round);
    return round;
  }

  /** Everything alive, nothing under way. */
  private async whole(): Promise<void> {
    const {fleet} = this;
    for (const {number} of fleet.nodes) await until(`node ${number} to be alive`, async () => (await livenessOf(fleet, number)) === 'alive', WHOLE_MS);
    await until('every job to end', async () => {
      const open = (await fleet.admin<{id: string; workflow: string; execution: string; target: string; error?: object}[]>('/v1/jobs?limit=1000')).filter(({execution}) => !ENDED.includes(execution));
      if (open.length) throw new Error(JSON.stringify(open.slice(0, 5).map(({id, workflow, execution, target, error}) => ({id, workflow, execution, target, error}))));
      return true;
    }, WHOLE_MS);
    await until('nothing to be on its way, and nothing to be left of what was forgotten', async () => {
      const moving = (await this.containers()).filter((c) => c.moving).map(({name}) => name);
      const remains = await fleet.admin<{key: string}[]>('/v1/store/remains?limit=100');
      if (moving.length || remains.length) throw new Error(JSON.stringify({moving, remains: remains.map(({key}) => key)}));
      return true;
    }, WHOLE_MS);
  }

  private containers(): Promise<Shown[]> {
    return this.fleet.admin<Shown[]>('/v1/containers?limit=1000');
  }

  /** What was acknowledged, and what runs. Reports may still be on their way: what is not right at once must become so. */
  private async check(): Promise<void> {
    let wrong: string[] = [];
    await until('all that was acknowledged to be accounted for', async () => {
      wrong = await this.wrongs();
      if (wrong.length) throw new Error(`\n${wrong.slice(0, 20).map((what) => `  ${what}`).join('\n')}`);
      return true;
    }, 30_000);
    // Doubtful ones are removed, by whatever name they have.
    for (const entry of [...this.load.entries.values()].filter(({doubtful, state}) => doubtful || state === 'absent')) {
      if (entry.doubtful) {
        await until(`${entry.name} to be removed`, async () => {
          const {status, body} = await this.load.call(1, 'DELETE', `/containers/${entry.name}?force=1&v=1`);
          if (status === 204 || status === 404) return true;
          throw new Error(`${status} ${body.toString().trim()}`);
        }, 60_000);
      }
      this.load.entries.delete(entry.name);
    }
  }

  private async wrongs(): Promise<string[]> {
    const {load, watcher, fleet} = this;
    const wrong = [...load.wrong, ...watcher.twice];
    const all = new Map((await this.containers()).map((c) => [c.name, c]));
    for (const endpoint of [1, 2]) {
      const listed = JSON.parse((await load.call(endpoint, 'GET', '/containers/json?all=1')).body.toString()) as {Names: string[]; State: string}[];
      const names = new Set(listed.map(({Names}) => Names[0]!.slice(1)));
      for (const name of all.keys()) if (!names.has(name)) wrong.push(`${name} is not listed by endpoint ${endpoint}`);
      if (names.size !== all.size) wrong.push(`endpoint ${endpoint} lists ${names.size} containers, there are ${all.size}`);
    }
    const running = new Map(fleet.nodes.map(({number, name}) => [name, runningOn(fleet, number)]));
    for (const entry of load.entries.values()) wrong.push(...this.ofEntry(entry, all.get(entry.name), running));
    for (const [name, {id}] of all) {
      if (!load.entries.has(name)) wrong.push(`${name} is there, and nobody made it`);
      const on = [...running].filter(([, ids]) => ids.has(id)).map(([node]) => node);
      if (on.length > 1) wrong.push(`${name} runs on ${on.join(' and ')}`);
    }
    const ids = new Set([...all.values()].map(({id}) => id));
    for (const [node, those] of running) for (const id of those) if (!ids.has(id)) wrong.push(`${id.slice(0, 12)} runs on ${node}, and is no container any more`);
    return wrong;
  }

  private ofEntry({name, kind, state, doubtful}: Entry, shown: Shown | undefined, running: ReadonlyMap<string, ReadonlySet<string>>): string[] {
    if (doubtful) return [];
    if (state === 'absent') return shown ? [`${name} was removed, and is ${shown.status} on ${shown.node}`] : [];
    if (!shown) return [`${name} (${kind}) was acknowledged as ${state}, and is gone`];
    const ends = [...this.scene.ended].some((number) => this.fleet.node(number).name === shown.node);
    // Its node lost its processes, and nobody wanted it back.
    const expected = state === 'running' && kind !== 'steady' && ends ? ['running', 'exited'] : [state];
    const wrong = expected.includes(shown.status) ? [] : [`${name} (${kind}) on ${shown.node} was acknowledged as ${state}, and is ${shown.status} (${shown.observation.exitCode} ${shown.observation.error})`];
    const runs = running.get(shown.node)?.has(shown.id) ?? false;
    if (runs !== (shown.status === 'running')) wrong.push(`${name} is ${shown.status}, and ${runs ? 'runs' : 'does not run'} on ${shown.node}`);
    // From now on this is what is known of it.
    if (!wrong.length && shown.status === 'exited' && state === 'running') this.load.entries.get(name)!.state = 'exited';
    return wrong;
  }

  /** All is removed: nothing may be left, on no node and in no bucket. */
  async settle(): Promise<void> {
    const {fleet, load} = this;
    await until('all of them to be removed', async () => {
      const left = await this.containers();
      for (const {id} of left) await load.call(1 + (left.length % 2), 'DELETE', `/containers/${id}?force=1&v=1`);
      return left.length === 0;
    }, WHOLE_MS);
    load.entries.clear();
    const volumes = (await fleet.ok(['volume', 'ls', '-q'])).split('\n').filter(Boolean);
    if (volumes.length) await fleet.ok(['volume', 'rm', ...volumes]);
    await this.whole();
    await until('nothing to be left in the store', async () => {
      const left = (await Promise.all(EMPTY_BUCKETS.map(async (bucket) => (await fleet.admin<{key: string}[]>(`/v1/store/${bucket}?limit=100`)).map(({key}) => `${bucket}/${key}`)))).flat();
      if (left.length) throw new Error(left.join(', '));
      return true;
    }, WHOLE_MS);
    await fleet.nothingLeaked(this.empty, 120_000);
  }

  async stop(): Promise<void> {
    await this.load.pause();
    this.watcher.stop();
    expect(await this.fleet.destroy()).toEqual(NOTHING_LEFT);
  }

  summary(): string {
    const {acked, refused, unanswered, execs} = this.load.tally;
    const kinds = new Map<string, number[]>();
    for (const {fault, wholeMs} of this.rounds) kinds.set(fault, [...kinds.get(fault) ?? [], wholeMs]);
    return [...[...kinds].map(([fault, all]) => `${fault}: ${all.length}, whole after ${median(all)} ms (worst ${Math.max(...all)})`),
      `${acked} orders acknowledged, ${refused} refused, ${unanswered} without an answer; ${execs} execs; ${this.watcher.twice.length} containers seen twice`].join('\n');
  }
}

const median = (numbers: number[]): number => [...numbers].sort((a, b) => a - b)[Math.floor((numbers.length - 1) / 2)]!;
