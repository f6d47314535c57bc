/** How much an endpoint takes upon itself: connections and sessions, per port and of all ports together. */
export interface Limits {
  /** TCP connections of one port, and of all. */
  connectionsPerPort: number;
  connections: number;
  /** Clients of one UDP port, and of all. */
  sessionsPerPort: number;
  sessions: number;
  /** A UDP client that nobody has answered yet, and one that was answered: so long after the last datagram it is forgotten (as the kernel's conntrack has it, docker-proxy 90 s for both). */
  unansweredMs: number;
  answeredMs: number;
  connectMs: number;
  /** How long connections may still come to their end once their container has gone or moved. */
  drainMs: number;
}

export const DEFAULT_LIMITS: Limits = {
  connectionsPerPort: 4096, connections: 16_384, sessionsPerPort: 2048, sessions: 8192, unansweredMs: 30_000, answeredMs: 120_000, connectMs: 5_000, drainMs: 1_000,
};

/** What all ports of an endpoint share. */
export class Shared {
  connections = 0;
  sessions = 0;
  /** Turned away at a limit, by nobody answering, or as datagrams that found a full queue. */
  refused = 0;

  constructor(readonly limits: Limits) {}
}
