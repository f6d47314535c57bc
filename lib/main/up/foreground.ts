/**
 * What runs in the foreground and keeps parts alive (`cetus up`, `cetus cluster`, `cetus fleet`): says what it is doing, ends its parts in the reverse order
 * of their beginning on Ctrl-C, SIGTERM or a closed terminal, also amid the start, and shows who runs in DIR/run/up.json, which is replaced whole at every
 * change.
 */
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';

/** Something that was started and will be ended. */
export interface Part { name: string; pid(): number | undefined; stop(): Promise<void> }

export interface ForegroundOptions {
  dir: string;
  log: Log;
  /** Let go at the end. */
  unlocks: (() => void)[];
  /** Said where a person ends it. */
  farewell: string;
  /** When all parts have ended. */
  afterwards?(): Promise<void>;
}

const STATUS_MS = 50;

export class Foreground {
  private readonly parts: Part[][] = [];
  private ending = false;
  private underWay: Promise<unknown> = Promise.resolve();
  private statusTimer: NodeJS.Timeout | undefined;

  constructor(private readonly options: ForegroundOptions) {
    process.on('SIGINT', () => {
      if (!this.ending) this.line(options.farewell);
      void this.end(0);
    });
    // A terminal that is closed ends us in good order too.
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void this.end(0));
  }

  /** `parts` end together, after those that were added later. */
  add(...parts: Part[]): void {
    this.parts.push(parts);
  }

  line(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  /** One step of the start. What it starts is among the parts, at the latest when it has settled: an end amid the start leaves nothing behind. */
  async step<T>(name: string, work: () => Promise<T>): Promise<T> {
    const working = timed(name, work);
    this.underWay = working.catch(() => undefined);
    const result = await working;
    if (this.ending) throw new CetusError('canceled', 'stopping');
    return result;
  }

  /** From now on up.json says so, and the process ids of the parts as they change. */
  show(status: () => Record<string, unknown>): void {
    const file = path.join(this.options.dir, 'run', 'up.json');
    let written = '';
    let unwritten = false;
    const write = (): void => {
      const children = Object.fromEntries(this.parts.flat().map((part) => [part.name, part.pid() ?? 0]));
      const text = JSON.stringify({pid: process.pid, ...status(), children}, null, 2);
      if (text === written) return;
      try {
        fs.writeFileSync(`${file}.new`, text);
        fs.renameSync(`${file}.new`, file);
        written = text;
      } catch (err) {
        // A full disk is no reason to end: the next turn tries again.
        if (!unwritten) this.options.log.error({err}, 'up.json could not be written');
        unwritten = true;
      }
    };
    write();
    this.statusTimer = setInterval(write, STATUS_MS);
  }

  /** The start failed: what there is of it ends. Returns where an end is under way already, which ends the process too. */
  async failed(err: unknown): Promise<void> {
    if (this.ending) return;
    this.options.log.error({err}, 'start');
    await this.stopParts();
    await this.afterwards();
    this.unlock();
    throw err;
  }

  private async end(status: number): Promise<void> {
    if (this.ending) return;
    this.ending = true;
    clearInterval(this.statusTimer);
    fs.rmSync(path.join(this.options.dir, 'run', 'up.json'), {force: true});
    await this.stopParts();
    await this.underWay;
    await this.stopParts();
    await this.afterwards();
    this.unlock();
    process.exit(status);
  }

  private async stopParts(): Promise<void> {
    for (const group of [...this.parts].reverse())
      await Promise.all(group.map((part) => part.stop().catch((err: unknown) => this.options.log.error({err, part: part.name}, 'stop'))));
  }

  private async afterwards(): Promise<void> {
    await this.options.afterwards?.().catch((err: unknown) => {
      this.options.log.error({err}, 'clean up');
      process.stderr.write(`cetus: clean up: ${(err as Error).message}; \`cetus down\` tries again\n`);
    });
  }

  private unlock(): void {
    for (const unlock of this.options.unlocks) unlock();
  }
}

/** Says what is being done while it takes long; one line per step. */
async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const from = Date.now();
  const dots = setInterval(() => process.stdout.write(`  ${name}: still starting (${Math.round((Date.now() - from) / 1000)} s)\n`), 3_000);
  try {
    const result = await work();
    process.stdout.write(`  ${name}: up after ${((Date.now() - from) / 1000).toFixed(1)} s\n`);
    return result;
  } finally {
    clearInterval(dots);
  }
}
