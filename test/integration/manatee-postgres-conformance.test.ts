/** What every PostgresServer must do, of the one over real servers. The simulated one: test/manatee/server-simulated.test.ts. */
import {monotonic} from '../../lib/manatee/monotonic';
import {signal} from '../../lib/manatee/postgres/processes';
import {usePeers} from '../harness/postgres-peers';
import {until} from '../harness/wait';
import {serverConformance} from '../manatee/server-conformance';

const peers = usePeers();

serverConformance(async () => ({
  async make(id) {
    const peer = await peers.peer(id);
    return {
      peer: peer.peer, server: peer.server,
      async commit() {
        let acknowledged = false;
        const client = await peer.client();
        peers.after(() => client.end());
        void client.query(`SELECT pg_logical_emit_message(true, 'x', 'x')`).then(() => { acknowledged = true; }, () => undefined);
        await until('it to be on its way', async () => acknowledged || (await peer.asSitter(`SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)).length > 0);
        return {acknowledged: () => acknowledged};
      },
      kill: () => signal(peer.postmaster(), 'SIGKILL'),
    };
  },
  nowMs: () => monotonic.nowMs(),
  until,
  close: async () => undefined,
}));
