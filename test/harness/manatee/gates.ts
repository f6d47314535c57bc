/**
 * Watches every machine's gate without end, through its own door (a socket in the filesystem, which no cut of the network reaches): never may a machine
 * let a client in, or answer one, after another machine has done so in a newer generation.
 *
 * What is compared are questions asked after another's answer had come, so that no question is blamed for having been on its way.
 */
import type pg from 'pg';
import {drop, type Cluster} from './cluster';
import type {Ledger} from './ledger';
import type {Machine} from './machine';

const BETWEEN_KNOCKS_MS = 150;
const BETWEEN_QUESTIONS_MS = 40;
/** Questions to a stopped server wait until it wakes; so many may wait. */
const WAITING = 6;
/** After it has woken, what a machine that slept as a whole may still answer. */
const WAKING_MS = 1500;
const QUESTION = `SELECT current_setting('cetus.generation') AS generation, pg_is_in_recovery() AS recovery`;

interface Served { machine: string; generation: number; answeredMs: number }

const pause = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

export class Gates {
  private ended = false;
  private newest: Served | undefined;
  private readonly running: Promise<unknown>[];
  private readonly clients = new Set<pg.Client>();
  answers = 0;
  /** Answers that a machine gave from its former life after it had slept as a whole: not promised not to happen. */
  fromFormerLives = 0;

  constructor(cluster: Cluster, private readonly ledger: Ledger) {
    this.running = cluster.machines.flatMap((machine) => [this.knock(machine), this.stay(machine)]);
  }

  async stop(): Promise<void> {
    this.ended = true;
    for (const client of this.clients) drop(client);
    await Promise.all(this.running);
  }

  /** New clients, whether or not the ones before have been answered. */
  private async knock(machine: Machine): Promise<void> {
    let waiting = 0;
    while (!this.ended) {
      if (waiting < WAITING) {
        waiting += 1;
        void this.asClient(machine, (client, askedMs) => this.ask(machine, client, askedMs)).finally(() => { waiting -= 1; });
      }
      await pause(BETWEEN_KNOCKS_MS);
    }
  }

  /** A client that came while the gate was open, and asks for as long as it is not sent away. */
  private async stay(machine: Machine): Promise<void> {
    while (!this.ended) {
      await this.asClient(machine, async (client) => {
        while (!this.ended) {
          await this.ask(machine, client, performance.now());
          await pause(BETWEEN_QUESTIONS_MS);
        }
      });
      await pause(BETWEEN_KNOCKS_MS);
    }
  }

  private async asClient(machine: Machine, use: (client: pg.Client, askedMs: number) => Promise<void>): Promise<void> {
    const askedMs = performance.now();
    const client = machine.local('client', 60_000);
    this.clients.add(client);
    try {
      await client.connect();
      await use(client, askedMs);
    } catch {
      // refused, sent away, or nobody there
    } finally {
      this.clients.delete(client);
      drop(client);
    }
  }

  private async ask(machine: Machine, client: pg.Client, askedMs: number): Promise<void> {
    const before = this.newest;
    const {rows: [row]} = await client.query<{generation: string; recovery: boolean}>(QUESTION);
    const served = {machine: machine.id, generation: Number(row!.generation), answeredMs: performance.now()};
    this.answers += 1;
    if (before && before.machine !== machine.id && before.answeredMs < askedMs && served.generation <= before.generation) {
      if (machine.sleptUntilMs > performance.now() - WAKING_MS) this.fromFormerLives += 1;
      else this.ledger.violations.push(`${machine.id} answered a client in generation ${served.generation}, asked ${Math.round(askedMs - before.answeredMs)} ms after ${before.machine} had answered one in generation ${before.generation}`);
    }
    if (row!.recovery) this.ledger.violations.push(`${machine.id} let a client in while in recovery`);
    if (!this.newest || served.generation > this.newest.generation) this.newest = served;
  }
}
