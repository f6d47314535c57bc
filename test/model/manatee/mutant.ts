/** A planted mistake: what it puts between a sitter and its world. The rest of the world is as it is. */
import type {Coordination} from '../../../lib/manatee/coordination';
import type {PostgresServer} from '../../../lib/manatee/server';
import type {Machine} from './machine';

export interface Mutant {
  name: string;
  coordination(real: Coordination, machine: Machine): Coordination;
  server(real: PostgresServer, machine: Machine): PostgresServer;
  /** A promotion takes the next number that its server knows to be free. */
  sameTimelines?: boolean;
  /** Whether a client gets in; `overrides`: one that sets whatever a session may set. */
  admits(machine: Machine, overrides: boolean): boolean;
}

export const NO_MUTANT: Mutant = {
  name: 'none',
  coordination: (real) => real,
  server: (real) => real,
  admits: (machine) => machine.postgres.run?.gate === 'open',
};
