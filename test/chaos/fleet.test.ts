/**
 * A real fleet of four behind two endpoints, with clients that never stop: CETUS_CHAOS_ROUNDS (30) rounds of faults, chosen by a seed that is printed (CETUS_CHAOS_SEED to have it again; what the machine makes of it
 * differs all the same). CETUS_CHAOS_FAULT=REGEXP chooses among those whose name matches, CETUS_CHAOS_LEASE (5s) is how long a node lives after a heartbeat.
 *
 * `make chaos-fleet`, not part of `make test`: a round takes ten to sixty seconds.
 */
import type {Node} from '../../lib/schema/node';
import {FAULTS} from '../harness/fleet-chaos/faults';
import {FleetChaos} from '../harness/fleet-chaos/rounds';
import {seeded} from '../harness/seeded';
import {until} from '../harness/wait';

const ROUNDS = Number(process.env.CETUS_CHAOS_ROUNDS ?? 30);
const SEED = Number(process.env.CETUS_CHAOS_SEED ?? Math.floor(Math.random() * 2 ** 31));
const LEASE = process.env.CETUS_CHAOS_LEASE ?? '5s';
const WANTED = new RegExp(process.env.CETUS_CHAOS_FAULT ?? '');
/** After so many rounds all is removed, and nothing may be left. */
const SETTLE_EVERY = 10;
const LOST = 20;

let chaos: FleetChaos;
const say = (line: string): void => { process.stderr.write(`${line}\n`); };

beforeAll(async () => {
  say(`fleet: ${ROUNDS} rounds, CETUS_CHAOS_SEED=${SEED}, leases of ${LEASE}`);
  chaos = await FleetChaos.start({seed: SEED, lease: LEASE});
}, 300_000);
afterAll(() => chaos?.stop(), 300_000);

test('whatever is struck, what was acknowledged is there, nothing runs twice, and nothing is left over', async () => {
  const next = seeded(SEED ^ 0x5eed);
  const faults = FAULTS.filter((fault) => WANTED.test(fault.name));
  try {
    for (let n = 1; n <= ROUNDS; n += 1) {
      const fault = faults[Math.floor(next() * faults.length)]!;
      const {wholeMs, standing} = await chaos.round(fault).catch((err: unknown) => { throw new Error(`round ${n} of seed ${SEED}, ${fault.name}: ${(err as Error).message}`, {cause: err}); });
      say(`${n}: ${fault.name}: whole after ${wholeMs} ms, ${standing} containers accounted for`);
      if (n % SETTLE_EVERY === 0) await chaos.settle();
    }
    await chaos.settle();
  } finally {
    say(chaos.summary());
  }
}, 300_000 + ROUNDS * 240_000);

interface Shown { name: string; node: string; status: string; moving?: object }

describe('twenty containers of one node', () => {
  const shown = async (): Promise<Shown[]> => (await chaos.fleet.admin<Shown[]>('/v1/containers?limit=1000')).filter(({name}) => name.startsWith('goes-'));
  const node = async (number: number): Promise<Node> => (await chaos.fleet.admin<Node[]>('/v1/nodes')).find(({name}) => name === chaos.fleet.node(number).name)!;

  async function on(number: number): Promise<void> {
    const {fleet} = chaos;
    for (const other of fleet.nodes) if (other.number !== number) expect((await fleet.cetus(['node', 'cordon', other.name])).status).toBe(0);
    const names = Array.from({length: LOST}, (_, n) => `goes-${n}`);
    for (const name of names) await fleet.ok(['run', '-d', '--name', name, '--restart', 'always', '--stop-signal', 'KILL', 'busybox', 'sleep', '100000']);
    for (const other of fleet.nodes) expect((await fleet.cetus(['node', 'uncordon', other.name])).status).toBe(0);
    expect(new Set((await shown()).map((c) => c.node))).toEqual(new Set([fleet.node(number).name]));
  }
  const gone = async (from: string): Promise<boolean> => {
    const all = await shown();
    return all.length === LOST && all.every((c) => c.node !== from && c.status === 'running' && !c.moving);
  };
  afterEach(async () => {
    const left = (await shown()).map(({name}) => name);
    if (left.length) await chaos.fleet.ok(['rm', '-f', ...left], {timeoutMs: 120_000});
    await chaos.settle();
  }, 300_000);

  test('run elsewhere within seconds after their node is fenced, with their addresses', async () => {
    await on(1);
    const {fleet} = chaos;
    const addresses = async (): Promise<string> => fleet.ok(['inspect', '-f', '{{.Name}} {{.NetworkSettings.IPAddress}}', ...Array.from({length: LOST}, (_, n) => `goes-${n}`)]);
    const before = await addresses();
    const cutMs = performance.now();
    await fleet.powerOff(1);
    await until('it to be fenced', async () => (await node(1)).liveness === 'fenced', 120_000);
    const fencedMs = performance.now();
    await until('all to run elsewhere', () => gone(fleet.node(1).name), 120_000);
    say(`${LOST} containers: ${Math.round(fencedMs - cutMs)} ms until their node was fenced, ${Math.round(performance.now() - fencedMs)} ms until all ran elsewhere`);
    expect(await addresses()).toBe(before);
    await fleet.powerOn(1);
    await until('it to be alive', async () => (await node(1)).liveness === 'alive', 120_000);
  }, 400_000);

  test('leave a node that is drained, two at a time', async () => {
    await on(2);
    const {fleet} = chaos;
    const fromMs = performance.now();
    expect((await fleet.cetus(['node', 'drain', fleet.node(2).name])).status).toBe(0);
    let most = 0;
    await until('all to run elsewhere', async () => {
      most = Math.max(most, (await shown()).filter((c) => c.moving).length);
      return gone(fleet.node(2).name);
    }, 240_000);
    say(`${LOST} containers drained in ${Math.round(performance.now() - fromMs)} ms, at most ${most} at once`);
    expect(most).toBeLessThanOrEqual(2);
    expect((await fleet.cetus(['node', 'uncordon', fleet.node(2).name])).status).toBe(0);
  }, 400_000);
});
