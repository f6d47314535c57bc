/** The simulated ZooKeeper does what the real one is held to: the same tests. Virtual time goes on by itself while a test waits. */
import {coordinationConformance} from '../../manatee/coordination-conformance';
import {SimCoordination} from './coordination';
import {Ensemble, ZK} from './ensemble';
import {Life} from './life';
import {Network} from './network';
import {Random} from './random';
import {Timeline} from './timeline';

const SESSION_MS = 2_000;
const FOREVER_MS = 1e12;

coordinationConformance(async () => {
  const timeline = new Timeline();
  const random = new Random(1);
  const network = new Network(timeline, random);
  const ensemble = new Ensemble(timeline, network, random, {declared: () => undefined, trace: () => undefined});
  const life = new Life(timeline);
  const sleep = (ms: number): Promise<void> => new Promise((resolve) => life.after(ms, resolve));
  // Something is always due, and each of it lets the test's own code run.
  const tick = (): void => life.after(1, tick);
  tick();
  void timeline.run(FOREVER_MS);
  const until = async (what: string, probe: () => Promise<unknown> | unknown): Promise<unknown> => {
    for (const end = timeline.nowMs + 60_000; timeline.nowMs < end;) {
      const found = await probe();
      if (found) return found;
      await sleep(5);
    }
    throw new Error(`still waiting for ${what}`);
  };
  return {
    make: async (id) => {
      const made = new SimCoordination({ensemble, network, random, life: new Life(timeline), endpoint: id, sessionTimeoutMs: SESSION_MS, nowMs: () => timeline.nowMs});
      await until('a connection', () => made.view().then(() => true, () => false));
      return made;
    },
    expireSession: async (id) => ensemble.expireSessionOf(id),
    cutOff: async (id) => {
      network.cut(id, ZK);
      network.cut(ZK, id);
    },
    restore: async (id) => {
      network.heal(id, ZK);
      network.heal(ZK, id);
    },
    nowMs: () => timeline.nowMs,
    sessionTimeoutMs: SESSION_MS,
    until,
    close: async () => timeline.halt(),
  };
});
