/**
 * The numbers of timelines. Postgres gives a promotion the next number that it finds free in its own directory, and so do two servers that have not heard of each
 * other: a sync that took over and died before anybody had streamed from it, and the next one. Both then write a timeline 2, and standbys and pg_rewind take
 * the one for the other without a word. A generation has one primary; so a promotion's number is taken from its generation: twice that, and
 * the odd one after it for a second attempt, where the first broke off with its number used.
 *
 * Postgres' search ends at the first number without a history file in pg_wal. So the numbers below ours get one each that says nothing. A standby that follows
 * asks its upstream for every number between its own and the upstream's; so whoever may be asked has all of them (`tidy`).
 */
import {readdir, readFile, rm} from 'node:fs/promises';
import path from 'node:path';
import type {Home} from './home';

const RESERVED = '# reserved\n';
const nameOf = (timeline: number): string => `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;

export const firstNumber = (generation: number): number => 2 * generation;

export class Timelines {
  constructor(private readonly home: Home) {}

  private get dir(): string {
    return path.join(this.home.data, 'pg_wal');
  }

  /** Before a start: no number without a meaning above the newest that has one (the server would take it for the newest timeline, and refuse), none missing below. */
  async tidy(): Promise<void> {
    const known = await this.known();
    const newest = Math.max(1, ...[...known].filter(([, real]) => real).map(([timeline]) => timeline));
    for (const [timeline, real] of known) if (!real && timeline > newest) await rm(path.join(this.dir, nameOf(timeline)));
    await this.fill(newest, known);
  }

  /** Before a promotion: it will be given this number, or the next that is free. */
  async reserveBelow(number: number): Promise<void> {
    await this.fill(number, await this.known());
  }

  /** Which have a history file, and whether it has something to say: a line for each timeline that it came from. */
  private async known(): Promise<Map<number, boolean>> {
    const known = new Map<number, boolean>();
    for (const name of await readdir(this.dir)) {
      const match = /^([0-9A-F]{8})\.history$/.exec(name);
      if (match) known.set(parseInt(match[1]!, 16), /^\s*\d/m.test(await readFile(path.join(this.dir, name), 'utf8')));
    }
    return known;
  }

  private async fill(below: number, known: ReadonlyMap<number, boolean>): Promise<void> {
    for (let timeline = 2; timeline < below; timeline += 1) if (!known.has(timeline)) await this.home.write(path.join(this.dir, nameOf(timeline)), RESERVED);
  }
}
