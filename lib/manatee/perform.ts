/** One step, done. What it may throw is coordination.ts's and server.ts's. */
import type {Step} from './decide/action';
import type {Coordination} from './coordination';
import type {PostgresServer} from './server';

export interface Performer {
  coordination: Coordination;
  server: PostgresServer;
  selfId: string;
  /** RFC 3339, for people. */
  now(): string;
}

export async function perform(step: Step, reason: string, {coordination, server, selfId, now}: Performer): Promise<void> {
  switch (step.kind) {
    case 'wait': return;
    case 'announce': return coordination.announce(step.announcement);
    case 'withdraw': return coordination.withdraw();
    case 'declare': return coordination.declare({next: step.next, version: step.version, absent: step.absent, entry: {at: now(), by: selfId, reason}});
    case 'initialise': return server.initialise();
    case 'start': return server.start(step.as, step.upstream);
    case 'stop': return server.stop(step.how);
    case 'follow': return server.follow(step.upstream);
    case 'promote': return server.promote(step.generation);
    case 'acknowledge': return server.acknowledge(step.by);
    case 'openGate': return server.openGate(step.generation);
    case 'closeGate': return server.closeGate();
    case 'restore': return server.restore(step.from, step.how, step.generation);
    case 'rebuild':
      await server.restore(step.from, 'copy', step.generation);
      return coordination.orderRebuild(selfId, false);
  }
}
