/**
 * Whom a standby streams from: stopping for certain, and finding out why a stream does not come about.
 */
import type pg from 'pg';
import {CetusError} from '../../base/errors';
import type {Monotonic} from '../coordination';
import {lsnDistance, type Lsn} from '../lsn';
import type {Peer} from '../state';
import {REPLICATION} from './conf';
import {PROOF_MS, type Configuration} from './configuration';
import type {Looker} from './facts';
import {signal} from './processes';
import {once, type Session} from './session';

/**
 * Returns when nothing is received any more, nor can be. Only the startup process makes a receiver, and what it is told to make it for it reads when it gets
 * to it. It is told by us, beside the postmaster who would in its own time; its confirmation of a pause that is requested after that comes after it has
 * read its configuration again. So when replay has paused it has asked for its last receiver, and when a connection begun after that has been answered,
 * the postmaster has made it. It is ended here: by itself it would go on until replay has caught up with it.
 */
export async function stopReceiving(configuration: Configuration, session: Session, looker: Looker, clock: Monotonic): Promise<void> {
  await configuration.ask({upstream: null});
  const until = clock.nowMs() + PROOF_MS;
  const waitFor = async (what: string, seen: () => Promise<boolean>): Promise<void> => {
    while (!(await seen())) {
      if (clock.nowMs() > until) throw new CetusError('unavailable', `our Postgres does not stop receiving: ${what}`);
      await clock.sleep(2);
    }
  };
  const [startup] = await session.ask<{pid: number}>(`SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'startup'`, [], 'startup');
  if (!startup) throw new CetusError('unavailable', 'our Postgres has no startup process: it is no standby');
  signal(startup.pid, 'SIGHUP');
  await session.ask('SELECT pg_wal_replay_pause()');
  try {
    await waitFor('replay does not pause', async () => (await session.ask<{state: string}>('SELECT pg_get_wal_replay_pause_state() AS state', [], 'paused'))[0]!.state === 'paused');
    await configuration.roundAfterwards();
    await waitFor('a receiver does not end', async () => {
      const pids = await session.ask<{pid: number}>(`SELECT pid FROM pg_stat_get_activity(NULL) WHERE backend_type = 'walreceiver'`, [], 'receivers');
      for (const {pid} of pids) signal(pid, 'SIGTERM');
      return pids.length === 0 && !(await looker.look()).receiver;
    });
  } finally {
    await session.ask('SELECT pg_wal_replay_resume()');
  }
}

interface Branch { timeline: number; until: Lsn }
interface History { systemId: string; timeline: number; before: Branch[]; inRecovery: boolean }

/**
 * Whether our WAL has left the upstream's history: told from the histories of both servers' timelines, asked of the servers themselves, and not from
 * the wording of an error. Being ahead of the upstream on its own timeline is no divergence: whoever was put behind a slower peer waits for it.
 */
export async function hasDiverged(session: Session, upstream: Peer, replayed: Lsn, password: string): Promise<boolean> {
  const [ours, theirs] = await Promise.all([
    once({...session.config, replication: 'database'} as pg.ClientConfig, history),
    once({host: upstream.host, port: upstream.port, user: REPLICATION, password, database: 'postgres', application_name: 'cetus_look', replication: 'database'} as pg.ClientConfig, history),
  ]);
  if (ours.systemId !== theirs.systemId) return true;
  if (ours.timeline === theirs.timeline) return false;
  const left = theirs.before.find((branch) => branch.timeline === ours.timeline);
  if (left) return lsnDistance(replayed, left.until) > 0n;
  // It may be behind us in our own history and get there, unless it is out of recovery and goes another way.
  return theirs.inRecovery ? !ours.before.some((branch) => branch.timeline === theirs.timeline) : true;
}

async function history(client: pg.Client): Promise<History> {
  const recovery = (await client.query<{recovery: boolean}>('SELECT pg_is_in_recovery() AS recovery')).rows[0]!.recovery;
  const {systemid, timeline} = (await client.query<{systemid: string; timeline: number}>('IDENTIFY_SYSTEM')).rows[0]!;
  return {systemId: systemid, timeline: Number(timeline), before: Number(timeline) === 1 ? [] : parse(await historyFile(client, Number(timeline))), inRecovery: recovery};
}

async function historyFile(client: pg.Client, timeline: number): Promise<string> {
  const {rows: [row]} = await client.query<{content: unknown}>(`TIMELINE_HISTORY ${timeline}`);
  return row!.content instanceof Buffer ? row!.content.toString() : String(row!.content);
}

/** A line each: the timeline, where it was left, why. */
function parse(text: string): Branch[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*(\d+)\s+([0-9A-F]+\/[0-9A-F]+)/i.exec(line);
    return match ? [{timeline: Number(match[1]), until: match[2]!}] : [];
  });
}

/** The upstream has thrown away what we would have to begin with. Only the upstream's words tell it, which ours has repeated in its log; both speak C's English by our configuration. */
export const isRemoved = (said: string): boolean => /requested WAL segment \w+ has already been removed/.test(said);

/** What a standby ends with at its start whose own WAL goes on beyond where the newest timeline that it knows has forked off. */
export const isNoChild = (said: string): boolean => /requested timeline \d+ is not a child of this server's history/.test(said);
