/**
 * Data made anew from another peer: `copy` (pg_basebackup) beside the old ones, which are swapped out when the copy is complete and on the disk;
 * `rewind` (pg_rewind) in place, after which only its success makes them data again. Both end as a standby's, with the configuration of a server
 * that lets nothing through.
 */
import {execFile} from 'node:child_process';
import {rm, statfs} from 'node:fs/promises';
import path from 'node:path';
import {promisify} from 'node:util';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Monotonic} from '../coordination';
import type {Peer} from '../state';
import {REPLICATION, connectionInfo, freshWish, towards} from './conf';
import type {Binaries} from './binaries';
import type {Configuration} from './configuration';
import {syncFilesystem, type Home} from './home';
import {environment} from './postmaster';
import {endAll} from './processes';
import {once} from './session';

const run = promisify(execFile);
/** The source's checkpoint after its promotion. */
const CHECKPOINT_MS = 60_000;
const ROOM_TO_SPARE_BYTES = 64 << 20;

export class Backup {
  constructor(
    private readonly binaries: Binaries, private readonly home: Home, private readonly configuration: Configuration, private readonly replicationPassword: string,
    private readonly clock: Monotonic, private readonly log: Log,
  ) {}

  async copy(from: Peer, generation: number): Promise<void> {
    const {home} = this;
    const source = await this.source(from);
    await rm(home.copying, {recursive: true, force: true});
    const space = await statfs(home.root);
    if (space.bavail * space.bsize < source.bytes + ROOM_TO_SPARE_BYTES && (await home.dataState()) !== 'none') {
      this.log.warn({from: from.id}, 'there is no room for a copy beside the data: they are removed first');
      await home.beginRestoring({how: 'copy', generation});
      await rm(home.data, {recursive: true, force: true});
    }
    // Its stream has a name that is no peer's: what it has flushed acknowledges nothing.
    await this.tool(source.version, 'pg_basebackup', ['-d', connectionInfo(towards(from, 'cetus_copy', home.pgpass)), '-D', home.copying, '-X', 'stream', '--no-slot', '--checkpoint=fast', '--no-password', '--no-sync']);
    await this.finish(home.copying);
    await home.swap(generation);
  }

  async rewind(from: Peer, generation: number): Promise<void> {
    const {home} = this;
    if ((await home.dataState()) !== 'present') throw new CetusError('conflict', 'only whole data can be rewound');
    // Before the data are touched: what may be had by trying again must not cost a copy.
    await this.rewindable(from);
    await home.beginRestoring({how: 'rewind', generation});
    // Where the server was not shut down, pg_rewind has it recover by itself, as a single process, which refuses to be a standby.
    await rm(path.join(home.data, 'standby.signal'), {force: true});
    await rm(path.join(home.data, 'postmaster.pid'), {force: true});
    await this.tool(await home.version(), 'pg_rewind', ['-D', home.data, '--no-sync', `--source-server=${connectionInfo({...towards(from, 'cetus_rewind', home.pgpass), dbname: 'postgres'})}`]);
    await this.finish(home.data);
    await home.endRestoring(generation);
  }

  /** A standby's, and closed, before anything may start them. */
  private async finish(data: string): Promise<void> {
    await this.configuration.prepare(freshWish(null), data);
    await this.home.writeLasting(path.join(data, 'standby.signal'), '');
    await syncFilesystem(data);
  }

  private source(from: Peer): Promise<{bytes: number; version: number; timeline: number; checkpointed: number; recovery: boolean}> {
    return once({host: from.host, port: from.port, user: REPLICATION, password: this.replicationPassword, database: 'postgres', application_name: 'cetus_look'}, async (client) => {
      const {rows: [row]} = await client.query<{bytes: string; version: number; recovery: boolean; timeline: number; checkpointed: number}>(
        `SELECT current_setting('server_version_num')::int / 10000 AS version, (SELECT sum(pg_database_size(oid)) FROM pg_database) AS bytes, pg_is_in_recovery() AS recovery, (SELECT timeline_id FROM pg_control_checkpoint()) AS checkpointed,
           CASE WHEN NOT pg_is_in_recovery() THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline`);
      return {...row!, bytes: Number(row!.bytes)};
    }).catch((err: unknown) => { throw new CetusError('unavailable', `${from.id} cannot be asked for its data`, {cause: err}); });
  }

  /** pg_rewind takes the source's timeline from its control file, which is right only after the checkpoint that follows a promotion. */
  private async rewindable(from: Peer): Promise<void> {
    const until = this.clock.nowMs() + CHECKPOINT_MS;
    for (;;) {
      const {recovery, timeline, checkpointed} = await this.source(from);
      if (recovery) throw new CetusError('unavailable', `${from.id} is in recovery: it is no source for a rewind yet`);
      if (timeline === checkpointed) return;
      if (this.clock.nowMs() > until) throw new CetusError('unavailable', `${from.id} has made no checkpoint since its promotion`);
      await this.clock.sleep(50);
    }
  }

  private async tool(version: number | undefined, name: string, args: string[]): Promise<void> {
    const {uid, gid} = this.home.user;
    const began = this.clock.nowMs();
    try {
      await run(path.join(await this.binaries.of(version), name), args, {cwd: this.home.root, env: environment(), maxBuffer: 16 << 20, ...(process.getuid!() === 0 ? {uid, gid} : {})});
    } catch (err) {
      // pg_rewind's own server, where it had one.
      await endAll(this.home.data, this.clock);
      const said = String((err as {stderr?: string}).stderr ?? '').trim().split('\n').slice(-5).join('; ');
      throw new CetusError('unavailable', `${name} failed: ${said || String(err)}`, {cause: err});
    }
    this.log.info({tool: name, ms: Math.round(this.clock.nowMs() - began)}, 'data were restored');
  }
}
