/**
 * One batch of a job: its record under its etag, with whatever goes along. Tells apart the four ways in which a batch fails: the lease is
 * lost; the target is locked; somebody changed what the plan had read; or the store did not answer, so that we must look whether we wrote.
 */
import type {Clock} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import type {BatchOp, BatchResult, Etag, Moray} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Job} from '../schema/job';

/** What the store holds, as far as this runner knows. Mutable: commits and lease renewals both move it on, never at the same time. */
export interface Saved { job: Job; /** null: not in the store yet */ etag: Etag | null }

export class LeaseLost extends Error {
  constructor(jobId: string, why: string) {
    super(`job ${jobId}: ${why}`);
  }
}

/** Nothing was written. `stale`: something the plan read or checked has changed. `unique`: a unique index. `invalid`: the writes themselves. */
export class Refused extends Error {
  constructor(readonly why: 'locked' | 'stale' | 'unique' | 'invalid', readonly error: CetusError) {
    super(error.message, {cause: error});
  }
}

interface Deps { moray: Moray; clock: Clock; leaseMs: number }

const JOBS = BUCKETS.jobs.name;
const FIRST_PAUSE_MS = 25;
const MAX_PAUSE_MS = 1000;

/**
 * Moves `saved` on; `results` are those of `ops`, where the store's answer was heard. `cancelSeen`: a cancel had been written meanwhile; `saved`
 * knows it now, the batch was not written: decide anew.
 */
export async function commitJob(deps: Deps, saved: Saved, job: Job, ops: BatchOp[]): Promise<{cancelSeen: boolean; results?: BatchResult[]}> {
  const revision = saved.job.revision + 1;
  let pauseMs = FIRST_PAUSE_MS;
  const creating = saved.etag === null;
  const giveUpAtMs = deps.clock.now() + deps.leaseMs;
  for (;;) {
    const written = renewed({...job, revision, cancelRequested: job.cancelRequested || saved.job.cancelRequested}, deps);
    try {
      const results = await deps.moray.batch([{op: 'put', bucket: JOBS, key: job.id, value: written, etag: saved.etag}, ...ops]);
      saved.job = written;
      saved.etag = results[0]!.etag!;
      return {cancelSeen: false, results: results.slice(1)};
    } catch (err) {
      const refusal = refusalOf(err, job);
      if (refusal) throw refusal;
      const unheard = isCetusError(err, 'unavailable') || isCetusError(err, 'timeout');
      if (!unheard && !isCetusError(err, 'etagConflict')) throw err;
      // The job's own etag moved, or we do not know whether we wrote. Look.
      if (unheard) {
        if (deps.clock.now() >= giveUpAtMs) {
          if (creating) throw err;
          throw new LeaseLost(job.id, 'the store did not answer for a whole lease');
        }
        await deps.clock.sleep(pauseMs);
        pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS);
      }
      const seen = await look(deps, job.id);
      if (seen === 'unheard') continue;
      if (seen && wroteIt(seen.job, written)) {
        saved.job = seen.job;
        saved.etag = seen.etag;
        return {cancelSeen: false};
      }
      if (!seen && creating) continue;
      const canceledMeanwhile = adopt(saved, seen);
      // Who is unwinding already has nothing to decide anew; who was about to succeed has: the cancel was recorded first.
      if (canceledMeanwhile && (job.execution === 'running' || job.execution === 'succeeded')) return {cancelSeen: true};
    }
  }
}

/** Prolongs the lease and nothing else. */
export async function renewLease(deps: Deps, saved: Saved): Promise<void> {
  await commitJob(deps, saved, saved.job, []).then(async ({cancelSeen}) => {
    // The flag is in `saved` now; the lease still wants its write.
    if (cancelSeen) await commitJob(deps, saved, saved.job, []);
  });
}

/** LeaseLost unless the job in the store is still this runner's. */
export async function rereadJob(deps: Deps, saved: Saved): Promise<void> {
  const seen = await look(deps, saved.job.id);
  if (seen !== 'unheard') adopt(saved, seen);
}

function renewed(job: Job, deps: Deps): Job {
  return job.lease && job.execution !== 'stuck' ? {...job, lease: {...job.lease, untilMs: deps.clock.now() + deps.leaseMs}} : job;
}

function refusalOf(err: unknown, job: Job): Refused | undefined {
  if (isCetusError(err, 'etagConflict')) {
    const {bucket, key} = err.info;
    if (bucket === JOBS && key === job.id) return undefined;
    return new Refused(bucket === BUCKETS.locks.name && key === job.target ? 'locked' : 'stale', err);
  }
  if (isCetusError(err, 'conflict')) return new Refused('unique', err);
  // A write to something that is gone (update of a deleted object), or one that the store cannot take: planning again sees why.
  if (isCetusError(err, 'notFound')) return new Refused('stale', err);
  if (isCetusError(err, 'invalid')) return new Refused('invalid', err);
  return undefined;
}

async function look(deps: Deps, jobId: string): Promise<{job: Job; etag: Etag} | undefined | 'unheard'> {
  try {
    const stored = await deps.moray.peek<Job>(JOBS, jobId);
    return stored && {job: stored.value, etag: stored.etag};
  } catch (err) {
    if (isCetusError(err, 'unavailable') || isCetusError(err, 'timeout')) return 'unheard';
    throw err;
  }
}

/** Only the runner of an epoch counts revisions up, so an equal revision in our epoch is our own write; an end has its own moment. */
function wroteIt(seen: Job, written: Job): boolean {
  if (seen.revision !== written.revision || seen.execution !== written.execution) return false;
  return written.lease ? sameLease(seen, written) : seen.endedAt === written.endedAt;
}

function sameLease(a: Job, b: Job): boolean {
  return a.lease?.runner === b.lease?.runner && a.lease?.epoch === b.lease?.epoch;
}

function adopt(saved: Saved, seen: {job: Job; etag: Etag} | undefined): boolean {
  if (!seen) throw new LeaseLost(saved.job.id, 'it is gone');
  if (!sameLease(seen.job, saved.job) || seen.job.execution !== saved.job.execution || seen.job.revision !== saved.job.revision)
    throw new LeaseLost(saved.job.id, `it belongs to ${seen.job.lease?.runner ?? 'nobody'} in epoch ${seen.job.lease?.epoch ?? 0} (${seen.job.execution})`);
  const news = seen.job.cancelRequested && !saved.job.cancelRequested;
  saved.job = seen.job;
  saved.etag = seen.etag;
  return news;
}
