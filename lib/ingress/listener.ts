/** What stands at one place, TCP or UDP, and the ways from there to a container. */
import type {Duplex} from 'node:stream';
import type {Target} from './desired';

export interface Listener {
  readonly target: Target;
  readonly connections: number;
  /** Rejects with the system's error: EADDRINUSE where another program has the port. `failed`: it broke later. */
  open(failed: (err: Error) => void): Promise<void>;
  /** From now on to there; who is connected to the former container is let go of. */
  lead(target: Target): void;
  /** Takes no more; who is connected may come to an end for a moment. */
  close(): void;
  /** At once, with everybody. */
  end(): void;
}

/** One client's datagrams to a container. */
export interface Session { send(datagram: Buffer): void; close(): void }

export interface Ways {
  tcp(target: Target): Promise<Duplex>;
  /** `closed`: the way is gone; the client's next datagram looks for another. */
  udp(target: Target, answered: (datagram: Buffer) => void, closed: () => void): Session;
}
