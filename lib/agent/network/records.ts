/**
 * What this node's network knows across restarts: a small file per network and per sandbox, written before the kernel is touched and removed
 * after, so that whatever exists is on record. The kernel is the truth about what exists; the records say what it is.
 */
import {mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {PublishedPort} from '../../schema/container';
import type {Plug} from './links';

export interface SandboxRecord {
  containerId: string;
  namespace: string;
  plugs: Plug[];
  /** As asked; on which address and where they lead follows from the plugs. */
  ports: PublishedPort[];
  /** Its own servers for foreign names. */
  dns?: string[];
}

export class Records<T> {
  private readonly items = new Map<string, T>();

  /** `missing`: what to say of an id that is not there. */
  constructor(private readonly dir: string, private readonly missing: (id: string) => string, private readonly log: Log) {}

  load(): void {
    mkdirSync(this.dir, {recursive: true, mode: 0o700});
    for (const file of readdirSync(this.dir)) {
      const path = join(this.dir, file);
      if (!file.endsWith('.json')) {
        rmSync(path, {force: true});
        continue;
      }
      try {
        this.items.set(file.slice(0, -'.json'.length), JSON.parse(readFileSync(path, 'utf8')) as T);
      } catch (err) {
        // Torn by a power failure (a crash of ours cannot tear a rename): the kernel's objects went with it.
        this.log.warn({err, path}, 'an unreadable network record is dropped');
        rmSync(path, {force: true});
      }
    }
  }

  get(id: string): T | undefined { return this.items.get(id); }
  /** `notFound` where there is none. */
  need(id: string): T {
    const item = this.items.get(id);
    if (item === undefined) throw new CetusError('notFound', this.missing(id));
    return item;
  }
  all(): T[] { return [...this.items.values()]; }
  ids(): string[] { return [...this.items.keys()]; }

  /** Synchronous: 0.1 ms, and the start of a container waits for it anyway. */
  put(id: string, item: T): void {
    const path = join(this.dir, `${id}.json`);
    writeFileSync(`${path}.new`, JSON.stringify(item), {mode: 0o600});
    renameSync(`${path}.new`, path);
    this.items.set(id, item);
  }

  delete(id: string): void {
    this.items.delete(id);
    rmSync(join(this.dir, `${id}.json`), {force: true});
  }
}
