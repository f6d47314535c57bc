/** lib/manatee/zookeeper over real servers: the conformance of every Coordination here, what only real ones can do in manatee-zookeeper-faults. */
import {silentLog} from '../../lib/base/log';
import {monotonic} from '../../lib/manatee/monotonic';
import {createCoordination, type ZooKeeperCoordination} from '../../lib/manatee/zookeeper/coordination';
import {Cut} from '../harness/cut';
import {until} from '../harness/wait';
import {ZooKeeper} from '../harness/zookeeper';
import {coordinationConformance, type CoordinationWorld} from '../manatee/coordination-conformance';

const SESSION_TIMEOUT_MS = 3000;
let zookeeper: ZooKeeper;
let worlds = 0;
beforeAll(async () => { zookeeper = await ZooKeeper.start({servers: 3}); }, 120_000);
afterAll(async () => { await zookeeper?.stop(); });

async function openWorld(): Promise<CoordinationWorld> {
  const path = `/cetus/conformance-${(worlds += 1)}`;
  const made: ZooKeeperCoordination[] = [];
  const cuts = new Map<string, Cut[]>();
  const each = async (id: string, act: (cut: Cut) => void): Promise<void> => { for (const cut of cuts.get(id) ?? []) act(cut); };
  const world: CoordinationWorld = {
    sessionTimeoutMs: SESSION_TIMEOUT_MS,
    nowMs: () => monotonic.nowMs(),
    async make(id) {
      if (!cuts.has(id)) cuts.set(id, await Promise.all(zookeeper.servers.map((server) => Cut.open(server))));
      const coordination = createCoordination({servers: cuts.get(id)!.map((cut) => cut.address).join(','), path, id, sessionTimeoutMs: SESSION_TIMEOUT_MS, clock: monotonic, log: silentLog()});
      made.push(coordination);
      await coordination.ready(30_000);
      return coordination;
    },
    cutOff: (id) => each(id, (cut) => cut.cut()),
    restore: (id) => each(id, (cut) => cut.restore()),
    async expireSession(id) {
      const leader = await zookeeper.leader();
      const sessions = async () => new Set((await leader.ask('dump')).match(/0x[0-9a-f]{6,}/g));
      const before = await sessions();
      await world.cutOff(id);
      await until('the session to expire', async () => {
        const now = await sessions();
        return [...before].some((session) => !now.has(session));
      });
      await world.restore(id);
    },
    async close() {
      await Promise.all(made.map((coordination) => coordination.close()));
      await Promise.all([...cuts.values()].flat().map((cut) => cut.close()));
    },
  };
  return world;
}

coordinationConformance(openWorld);
