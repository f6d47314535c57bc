/** Rounds of faults against one cluster with clients that never stop; after each, everything is checked. */
import {check, checkCopies} from './check';
import {Clients} from './clients';
import {Cluster} from './cluster';
import type {Fault} from './faults';
import {Gates} from './gates';
import {Ledger} from './ledger';

export interface Round {
  fault: string;
  /** The longest time in which no write was acknowledged. */
  outageMs: number;
  /** Until every machine had its place again. */
  wholeMs: number;
}

export class Chaos {
  readonly rounds: Round[] = [];

  private constructor(readonly cluster: Cluster, readonly ledger: Ledger, readonly clients: Clients, readonly gates: Gates) {}

  static async start(options: {peers?: number; sessionTimeoutMs?: number} = {}): Promise<Chaos> {
    const cluster = await Cluster.start(options);
    const ledger = new Ledger();
    const clients = new Clients(cluster, ledger);
    try {
      await clients.start();
      return new Chaos(cluster, ledger, clients, new Gates(cluster, ledger));
    } catch (err) {
      await clients.stop().catch(() => undefined);
      await cluster.stop();
      throw err;
    }
  }

  /** Throws with everything that is wrong, and with what happened. */
  async round(fault: Fault): Promise<Round> {
    let struckMs = performance.now();
    try {
      await fault.run(this.cluster, () => { struckMs = performance.now(); });
      await this.cluster.whole();
      const wholeMs = performance.now() - struckMs;
      const round = {fault: fault.name, outageMs: Math.round(this.ledger.outageMs(struckMs)), wholeMs: Math.round(wholeMs)};
      this.rounds.push(round);
      this.refuse(await check(this.cluster, this.clients));
      return round;
    } catch (err) {
      throw new Error(`${fault.name}: ${(err as Error).message}\n${await this.cluster.report()}`);
    }
  }

  /** The last word: nobody writes any more, and every copy is the same. */
  async settle(): Promise<void> {
    await this.gates.stop();
    await this.clients.stop();
    this.refuse([...await check(this.cluster, this.clients), ...await checkCopies(this.cluster, this.clients)]);
  }

  private refuse(wrong: string[]): void {
    if (wrong.length) throw new Error(`\n${wrong.slice(0, 20).map((what) => `  ${what}`).join('\n')}`);
  }

  async stop(): Promise<void> {
    await this.gates.stop();
    await this.clients.stop();
    await this.cluster.stop();
  }

  /** A line for each kind of fault. */
  summary(): string {
    const kinds = groupBy(this.rounds);
    const lines = [...kinds].map(([fault, all]) => {
      const [outages, whole] = [all.map((round) => round.outageMs), all.map((round) => round.wholeMs)];
      return `${fault}: ${all.length}, without a write ${median(outages)} ms (worst ${Math.max(...outages)}), whole after ${median(whole)} ms (worst ${Math.max(...whole)})`;
    });
    const {acked, unknown, refused} = this.ledger.counts;
    return [...lines, `${acked} writes acknowledged, ${unknown} of unknown outcome, ${refused} refused; ${this.clients.reads} reads, ${this.gates.answers} looks through open gates, ${this.gates.fromFormerLives} of them into a former life`].join('\n');
  }
}

function groupBy(rounds: Round[]): Map<string, Round[]> {
  const kinds = new Map<string, Round[]>();
  for (const round of rounds) kinds.set(round.fault, [...kinds.get(round.fault) ?? [], round]);
  return kinds;
}

const median = (numbers: number[]): number => [...numbers].sort((a, b) => a - b)[Math.floor((numbers.length - 1) / 2)]!;
