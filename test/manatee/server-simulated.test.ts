/** What every PostgresServer must do, of the simulated one: so that what the simulator shows of the sitter holds for the real one. */
import {until} from '../harness/wait';
import {Life} from '../model/manatee/life';
import {SimServer} from '../model/manatee/server';
import {World} from '../model/manatee/world';
import {serverConformance} from './server-conformance';

serverConformance(async () => {
  const world = new World({seed: 7, peers: 0, sessionTimeoutMs: 6000, restartGraceMs: 2000, oneNode: false, founded: false});
  // It judges by the cluster's state, and there is no cluster.
  world.checker.acknowledged = () => undefined;
  world.checker.gateOpened = () => undefined;
  let open = true;
  const running = (async () => {
    while (open) {
      await world.timeline.run(world.timeline.nowMs + 5);
      await new Promise((resolve) => { setTimeout(resolve, 1); });
    }
  })();
  let writes = 0;
  return {
    async make(id) {
      const machine = world.addMachine(id);
      const life = new Life(world.timeline);
      return {
        peer: machine.peer, server: new SimServer(machine.postgres, life),
        async commit() {
          let acknowledged = false;
          machine.postgres.run!.commit((writes += 1), () => { acknowledged = true; });
          return {acknowledged: () => acknowledged};
        },
        kill: () => machine.postgres.crash(machine.postgres.run!, 'killed'),
      };
    },
    nowMs: () => world.timeline.nowMs,
    until,
    async close() {
      open = false;
      await running;
    },
  };
});
