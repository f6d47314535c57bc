/**
 * Where the agent keeps things under its data directory, and how: whole files by write-temp-and-rename, in one synchronous step; a container's
 * record, which changes several times in each of its lives, by appending a line to state.log. (Renaming onto a file that exists makes
 * ext4 allocate and send off the new one's blocks then and there: 0.8 ms, and on a busy disk 4 to 70, in the middle of a start; an append takes 0.02.)
 *
 * Synchronous because these files are a kilobyte in the page cache (40 us, where a trip through the thread pool costs 100 us and three
 * awaits), and because a step without an await cannot be interleaved. Not fsynced: kill -9 of the agent loses nothing; after a power cut
 * the control plane's records are the durable ones, and generations jump (REBOOT_GENERATION_STEP) so that a lost write is never mistaken for news.
 */
import {closeSync, fstatSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs';
import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import type {ContainerSpec} from '../schema/container';
import type {ImageConfigFile} from '../schema/docker';
import {appendWhole} from './append';
import type {ContainerRecord} from './container/record';

/** Beyond it the state's file begins anew with its last line. */
const MAX_STATE_BYTES = 128 * 1024;
export const REBOOT_GENERATION_STEP = 1_000;

const REMOVED = 'removed-';

/** Present once `container.create` has got the image; never changed but by update and rename. */
export interface StoredSpec { spec: ContainerSpec; image: ImageConfigFile; parentSnapshot: string }

/** Where the disk is full the file stays as it was: writeFileSync goes on after a short write, and throws before anything is renamed. */
export function writeWhole(path: string, text: string): void {
  const temporary = `${path}.tmp`;
  try {
    writeFileSync(temporary, text, {mode: 0o640});
    renameSync(temporary, path);
  } catch (err) {
    rmSync(temporary, {force: true});
    throw err;
  }
}

/** undefined where the file is missing or, after a power cut, not whole. */
export function readJson<T>(path: string): T | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw err;
  }
  return parse<T>(text);
}

function parse<T>(text: string): T | undefined {
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}

export class NodeStore {
  constructor(readonly dataDir: string) {
    mkdirSync(join(dataDir, 'containers'), {recursive: true, mode: 0o711});
    mkdirSync(join(dataDir, 'tmp'), {recursive: true, mode: 0o700});
    mkdirSync(join(dataDir, 'ledger'), {recursive: true, mode: 0o700});
  }

  dir(id: string): string {
    return join(this.dataDir, 'containers', id);
  }

  /** Where a container that shares its IPC has its /dev/shm mounted. */
  shmPath(id: string): string {
    return join(this.dir(id), 'shm');
  }

  containerIds(): string[] {
    return readdirSync(join(this.dataDir, 'containers'));
  }

  logPath(id: string): string {
    return join(this.dir(id), `${id}-json.log`);
  }

  saveSpec(id: string, stored: StoredSpec): void {
    mkdirSync(this.dir(id), {recursive: true, mode: 0o710});
    writeWhole(join(this.dir(id), 'spec.json'), JSON.stringify(stored));
  }

  loadSpec(id: string): StoredSpec | undefined {
    return readJson(join(this.dir(id), 'spec.json'));
  }

  saveRecord(id: string, record: ContainerRecord): void {
    const path = join(this.dir(id), 'state.log');
    // A line break first: whatever a torn line before it held, this one stands alone.
    const line = `\n${JSON.stringify(record)}`;
    const fd = openSync(path, 'a', 0o640);
    let before: number;
    try {
      before = fstatSync(fd).size;
      appendWhole(fd, Buffer.from(line), before);
    } finally {
      closeSync(fd);
    }
    if (before > MAX_STATE_BYTES) writeWhole(path, line);
  }

  /** The last line that is whole. */
  loadRecord(id: string): ContainerRecord | undefined {
    let text: string;
    try {
      text = readFileSync(join(this.dir(id), 'state.log'), 'utf8');
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw err;
    }
    const lines = text.split('\n');
    for (let line = lines.pop(); line !== undefined; line = lines.pop()) {
      const record = line && parse<ContainerRecord>(line);
      if (record) return record;
    }
    return undefined;
  }

  /** A file that is bind mounted into the container: written in place, because a rename would leave the mount on the old one. */
  saveMounted(id: string, name: 'hosts' | 'hostname' | 'resolv.conf', text: string): string {
    const path = join(this.dir(id), name);
    writeFileSync(path, text, {mode: 0o644});
    return path;
  }

  /** In one step: a directory that is half there would be taken for a container. Its files are deleted beside, or at the next start. */
  erase(id: string): void {
    const aside = join(this.dataDir, 'tmp', `${REMOVED}${id}-${Date.now()}`);
    try {
      renameSync(this.dir(id), aside);
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'ENOENT') throw err;
      return;
    }
    void rm(aside, {recursive: true, force: true}).catch(() => undefined);
  }

  /** Files of removed containers that a life before this one did not come to delete. */
  async sweep(): Promise<void> {
    const tmp = join(this.dataDir, 'tmp');
    for (const name of readdirSync(tmp)) if (name.startsWith(REMOVED)) await rm(join(tmp, name), {recursive: true, force: true});
  }

  /** Rises each time the agent opens its data directory. */
  nextBootGeneration(): number {
    const path = join(this.dataDir, 'boot.json');
    const next = (readJson<{generation: number}>(path)?.generation ?? 0) + 1;
    writeWhole(path, JSON.stringify({generation: next}));
    return next;
  }
}
