/** Our own Postgres, started again at once when it dies: it recovers by itself, and every client of the store waits and retries. */
import path from 'node:path';
import type {Log} from '../../base/log';
import {endPostgres, type RunningPostgres, startPostgres} from '../postgres';

const RETRY_MS = 500;

const dataOf = (dir: string): string => path.join(dir, 'postgres');

/** What a killed `cetus up` left, where this one has a Postgres of the operator's. */
export const endFormerPostgres = (dir: string, log: Log): Promise<void> => endPostgres(dataOf(dir), log);

export class OwnPostgres {
  readonly name = 'postgres';
  private running: RunningPostgres | undefined;
  private stopping = false;

  constructor(private readonly dir: string, private readonly log: Log) {}

  async start(): Promise<string> {
    const running = await startPostgres({dataDir: dataOf(this.dir), socketDir: path.join(this.dir, 'run'), log: this.log});
    this.running = running;
    running.onExit(() => {
      if (this.running === running) this.running = undefined;
      if (!this.stopping) this.again();
    });
    return running.url;
  }

  pid(): number | undefined {
    return this.running?.pid;
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.running?.stop();
  }

  private again(): void {
    if (this.stopping) return;
    this.log.warn('Postgres ended by itself; starting it again');
    this.start().catch((err: unknown) => {
      this.log.error({err}, 'start Postgres again');
      setTimeout(() => this.again(), RETRY_MS);
    });
  }
}
