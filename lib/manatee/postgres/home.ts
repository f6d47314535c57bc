/**
 * A peer's directory, and who owns what in it. Postgres' data directory is one level below, because a base backup copies, and a rewind overwrites or
 * removes, whatever lies in a data directory: what is true of this peer alone must lie outside of it. It also makes the swap of old data for new
 * ones two renames within one filesystem, be the peer's directory a mount point or not.
 *
 *   data/             Postgres'
 *   copying/          a copy that is not complete, or is and waits to be swapped in
 *   former/           data that a copy has replaced, about to be removed
 *   making/           an initdb that has not ended
 *   peer.json         what is remembered of the data: how they last ran, in which generation they were restored, in which clients were let in
 *   restoring.json    there while a rewind or a swap is under way: `data` is not to be trusted
 *   postgres.log, pgpass
 */
import {execFile} from 'node:child_process';
import {constants, existsSync} from 'node:fs';
import {chown, lstat, mkdir, open, readFile, rename, rm, stat, type FileHandle} from 'node:fs/promises';
import path from 'node:path';
import {promisify} from 'node:util';
import {CetusError} from '../../base/errors';
import type {ServerFacts} from '../server';

export interface SystemUser { uid: number; gid: number; name: string }

/** What is known of the data beyond what is in them. */
export type Memory = Pick<ServerFacts, 'ran' | 'restoredIn' | 'generation'>;

/** `swap`: the copy is complete, the swap may be finished. Otherwise the data are half of one server's and half of another's, or gone. */
interface Restoring { how: 'rewind' | 'copy' | 'swap'; generation: number }

export class Home {
  readonly data: string;
  readonly copying: string;
  readonly former: string;
  readonly making: string;
  readonly log: string;
  readonly pgpass: string;

  private constructor(readonly root: string, readonly user: SystemUser) {
    const at = (name: string): string => path.join(root, name);
    this.data = at('data');
    this.copying = at('copying');
    this.former = at('former');
    this.making = at('making');
    this.log = at('postgres.log');
    this.pgpass = at('pgpass');
  }

  /** Makes the directory where it is missing. */
  static async open(root: string): Promise<Home> {
    const dir = path.resolve(root);
    await mkdir(dir, {recursive: true, mode: 0o755});
    const home = new Home(dir, await userFor(dir));
    await checkReachable(dir, home.user);
    const owner = await stat(dir);
    if (owner.uid !== home.user.uid) await chown(dir, home.user.uid, home.user.gid);
    return home;
  }

  /** Ends, or takes away, what a crash left half done. Nobody may be at work in it any more. */
  async mend(): Promise<void> {
    const restoring = await this.restoring();
    if (restoring?.how === 'swap') await this.swap(restoring.generation);
    for (const dir of [this.making, this.copying, this.former]) await rm(dir, {recursive: true, force: true});
  }

  /** The major version of the data; undefined where there are none. */
  async version(): Promise<number | undefined> {
    const text = await readFile(path.join(this.data, 'PG_VERSION'), 'utf8').catch(() => '');
    return Number(text) || undefined;
  }

  async dataState(): Promise<ServerFacts['data']> {
    if (existsSync(path.join(this.root, 'restoring.json'))) return 'broken';
    return existsSync(path.join(this.data, 'PG_VERSION')) ? 'present' : 'none';
  }

  async memory(): Promise<Memory> {
    const text = await readFile(path.join(this.root, 'peer.json'), 'utf8').catch((err: NodeJS.ErrnoException) => {
      if (err.code === 'ENOENT') return undefined;
      throw err;
    });
    if (text !== undefined) return JSON.parse(text) as Memory;
    // A database that somebody else made and put here: what it last was stands in its control file.
    const control = await this.control();
    return {ran: control === null ? 'never' : control.recovering ? 'standby' : 'primary', restoredIn: 0, generation: 0};
  }

  remember(memory: Memory): Promise<void> {
    return this.writeLasting(path.join(this.root, 'peer.json'), JSON.stringify(memory));
  }

  /**
   * pg_control begins with the system identifier and, from its 16th byte, the state of the cluster, in the machine's own order of bytes, in every version
   * from 14 to 18 (catalog/pg_control.h). Reading it costs nothing, and works while the server is down.
   */
  async control(): Promise<{systemId: string; recovering: boolean} | null> {
    const bytes = await readFile(path.join(this.data, 'global', 'pg_control')).catch(() => null);
    if (!bytes || bytes.length < 20) return null;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const little = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
    // DB_SHUTDOWNED_IN_RECOVERY, DB_IN_ARCHIVE_RECOVERY
    return {systemId: view.getBigUint64(0, little).toString(), recovering: [2, 5].includes(view.getUint32(16, little))};
  }

  /** Is it a standby's directory: would the server stay in recovery, or does it owe a promotion? */
  async isStandby(): Promise<boolean> {
    return existsSync(path.join(this.data, 'standby.signal')) || ((await this.control())?.recovering ?? false);
  }

  // ---- restoring ----

  async restoring(): Promise<Restoring | null> {
    const text = await readFile(path.join(this.root, 'restoring.json'), 'utf8').catch(() => null);
    return text === null ? null : JSON.parse(text) as Restoring;
  }

  beginRestoring(restoring: Restoring): Promise<void> {
    return this.writeLasting(path.join(this.root, 'restoring.json'), JSON.stringify(restoring));
  }

  async endRestoring(generation: number): Promise<void> {
    await this.remember({ran: 'standby', restoredIn: generation, generation: 0});
    await rm(path.join(this.root, 'restoring.json'), {force: true});
    await syncDirectory(this.root);
  }

  /** Puts a complete copy in the data's place. Repeatable at any point. */
  async swap(generation: number): Promise<void> {
    await this.beginRestoring({how: 'swap', generation});
    if (existsSync(this.copying)) {
      if (existsSync(this.data)) {
        await rm(this.former, {recursive: true, force: true});
        await rename(this.data, this.former);
      }
      await rename(this.copying, this.data);
      await syncDirectory(this.root);
    }
    await this.endRestoring(generation);
    await rm(this.former, {recursive: true, force: true});
  }

  // ---- files ----

  /** All of it or nothing, for whoever reads; not yet on the disk. For what is written anew before each start. */
  async write(file: string, text: string, mode = 0o600): Promise<void> {
    await (await this.replace(file, text, mode)).close();
  }

  /** As `write`, and it outlives the machine's power. */
  async writeLasting(file: string, text: string): Promise<void> {
    const handle = await this.replace(file, text, 0o600, true);
    await handle.close();
    await syncDirectory(path.dirname(file));
  }

  private async replace(file: string, text: string, mode: number, sync = false): Promise<FileHandle> {
    const fresh = `${file}.new`;
    await rm(fresh, {force: true});
    // Exclusively: the directory is the server's user's, and root must not follow a link that it has put there.
    const handle = await open(fresh, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, mode);
    try {
      await handle.writeFile(text);
      await handle.chown(this.user.uid, this.user.gid);
      if (sync) await handle.sync();
      await rename(fresh, file);
      return handle;
    } catch (err) {
      await handle.close();
      await rm(fresh, {force: true});
      throw err;
    }
  }
}

export async function syncDirectory(dir: string): Promise<void> {
  const handle = await open(dir, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * All of a directory, and whatever else its filesystem has to write: one flush in place of one per file, which is what Postgres' own tools do and takes
 * them seconds (they are told not to).
 */
export async function syncFilesystem(dir: string): Promise<void> {
  await promisify(execFile)('sync', ['--file-system', dir]);
}

/** Postgres refuses root. Under root it runs as the directory's owner, or as the user that the distribution's package made. */
async function userFor(dir: string): Promise<SystemUser> {
  const users = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':')).filter((f) => f.length >= 4).map((f) => ({name: f[0]!, uid: Number(f[2]), gid: Number(f[3])}));
  const us = process.getuid!();
  if (us !== 0) return users.find((u) => u.uid === us) ?? {name: String(us), uid: us, gid: process.getgid!()};
  const owner = await stat(dir);
  if (owner.uid !== 0) return users.find((u) => u.uid === owner.uid) ?? {name: String(owner.uid), uid: owner.uid, gid: owner.gid};
  const postgres = users.find((u) => u.name === 'postgres');
  if (!postgres) throw new CetusError('unavailable', 'Postgres does not run as root, and there is no system user postgres, which the distribution\'s package makes');
  return postgres;
}

/** Said at once and by name; the server itself would speak of a file that does not exist. */
export async function checkReachable(dir: string, user: SystemUser): Promise<void> {
  for (let at = path.dirname(dir); ; at = path.dirname(at)) {
    const s = await lstat(at).then((l) => (l.isSymbolicLink() ? stat(at) : l));
    const allowed = user.uid === 0 || (s.uid === user.uid ? s.mode & 0o100 : s.gid === user.gid ? s.mode & 0o010 : s.mode & 0o001);
    if (!allowed) throw new CetusError('invalid', `Postgres runs as user ${user.name}, who may not enter ${at}: choose a directory elsewhere, or allow it with chmod o+x`);
    if (at === path.dirname(at)) return;
  }
}
