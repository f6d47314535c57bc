/**
 * Finds jobs that nobody runs (queued, or their lease has expired) and claims them; deletes jobs that ended long ago. The hint (change
 * feed, a local enqueue), the timer and the start of the process all run the same scan.
 */
import {repeat} from '../base/background';
import {formatNs, type Clock} from '../base/clock';
import {isCetusError} from '../base/errors';
import type {Log} from '../base/log';
import type {Etag, Moray, Stored} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Job} from '../schema/job';
import {CLAIMABLE, jobEnded, targetFreed, type Notices} from './notices';
import type {Registry} from './registry';
import {isEnded, must, transition} from './state';

export interface ClaimDeps {
  moray: Moray;
  clock: Clock;
  random(): number;
  log: Log;
  registry: Registry;
  notices: Notices;
  runnerId: string;
  leaseMs: number;
  pollMs: number;
  resumeOwn: boolean;
  /** Jobs taken from others that run here at the same time; those accepted inline are not counted. */
  maxClaimed: number;
  retentionMs: number;
  retentionSweepMs: number;
  /** Is this process at work on it already? */
  isActive(jobId: string): boolean;
  execute(job: Job, etag: Etag): Promise<void>;
}

const JOBS = BUCKETS.jobs.name;
const ENDED = '(|(execution=succeeded)(execution=failed)(execution=canceled)(execution=stuck))';
const OF_INTEREST = `(|(execution=queued)${ENDED})`;
const SWEEP_BATCH = 200;

export class Claims {
  private readonly stopping = new AbortController();
  private readonly running = new Set<Promise<void>>();
  private loops: Promise<void>[] = [];
  /** Unknown workflows are said once per job, not once per scan. */
  private readonly unknown = new Set<string>();

  constructor(private readonly deps: ClaimDeps) {}

  start(): void {
    const {deps: {clock, log, pollMs, retentionSweepMs}, stopping: {signal}} = this;
    const watching = repeat({clock, signal, pauseMs: pollMs, work: () => this.watch(), failed: (err) => log.warn({err}, 'the feed of jobs broke; watching again')});
    const sweeping = repeat({
      clock, signal, pauseMs: retentionSweepMs, work: () => this.sweep(), failed: (err) => log.warn({err}, 'deleting old jobs failed; trying again later'),
    });
    this.loops = [watching, this.claimLoop(), sweeping];
  }

  /** No more claims; resolves when the loops are over. What has been claimed goes on. */
  async stop(): Promise<void> {
    this.stopping.abort(new Error('the runner stops'));
    this.deps.notices.notify(CLAIMABLE);
    await Promise.all(this.loops);
  }

  /** Resolves when nothing claimed runs here any more. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.running]);
  }

  /** One pass; returns how many were claimed. */
  async scan(first: boolean): Promise<number> {
    const now = this.deps.clock.now();
    let claimed = 0;
    const room = (): number => this.deps.maxClaimed - this.running.size;
    const take = async (rows: AsyncIterable<Stored<Job>>): Promise<void> => {
      const found: Stored<Job>[] = [];
      for await (const row of rows) found.push(row);
      for (const row of found) {
        if (room() <= 0 || this.stopping.signal.aborted) return;
        if (await this.claim(row)) claimed += 1;
      }
    };
    const limit = Math.max(this.deps.maxClaimed, 1);
    const oldest = {sort: [{field: 'createdAtNs', order: 'asc' as const}], limit};
    await take(this.deps.moray.find<Job>(JOBS, '(execution=queued)', oldest));
    for (const execution of ['running', 'unwinding'])
      await take(this.deps.moray.find<Job>(JOBS, `(&(execution=${execution})(leaseUntilMs<=${now}))`, oldest));
    if (first && this.deps.resumeOwn) {
      for (const execution of ['running', 'unwinding'])
        await take(own(this.deps.moray.find<Job>(JOBS, `(execution=${execution})`), this.deps.runnerId));
    }
    return claimed;
  }

  private async claim(row: Stored<Job>): Promise<boolean> {
    const {deps} = this;
    if (deps.isActive(row.key)) return false;
    if (!deps.registry.of(row.value)) {
      if (!this.unknown.has(row.key)) deps.log.warn({jobId: row.key, workflow: row.value.workflow, version: row.value.version}, 'a job of a workflow that is not known here; left alone');
      this.unknown.add(row.key);
      return false;
    }
    const next = transition(row.value, {type: 'claim', runner: deps.runnerId, untilMs: deps.clock.now() + deps.leaseMs, at: formatNs(deps.clock.nowNs())});
    if (!next.ok) return false;
    const job = {...next.job, revision: next.job.revision + 1};
    let stored: Stored<Job>;
    try {
      stored = await deps.moray.put(JOBS, job.id, job, {etag: row.etag});
    } catch (err) {
      // Somebody else was faster, which is as good. An unheard success costs one lease time: nobody works on it, then it expires.
      if (isCetusError(err, 'etagConflict')) return false;
      throw err;
    }
    deps.log.info({jobId: job.id, workflow: job.workflow, epoch: job.lease?.epoch, execution: job.execution}, 'claimed');
    const work = deps.execute(stored.value, stored.etag)
      .catch((err: unknown) => deps.log.error({err, jobId: job.id, workflow: job.workflow}, 'a claimed job broke off; its lease will expire'))
      .finally(() => {
        this.running.delete(work);
        deps.notices.notify(CLAIMABLE);
      });
    this.running.add(work);
    return true;
  }

  private async claimLoop(): Promise<void> {
    for (let first = true; !this.stopping.signal.aborted; first = false) {
      // Between a fifth less and a fifth more: runners that were started together should not scan together.
      const wake = this.deps.notices.next(CLAIMABLE, this.deps.pollMs * (0.8 + this.deps.random() * 0.4), this.stopping.signal);
      try {
        await this.scan(first);
      } catch (err) {
        this.deps.log.warn({err}, 'looking for jobs failed; trying again');
      }
      await wake;
    }
  }

  private async watch(): Promise<void> {
    for await (const change of await this.deps.moray.watch<Job>(JOBS, OF_INTEREST, {signal: this.stopping.signal})) {
      if (change.kind !== 'put') continue;
      if (change.value.execution === 'queued') this.deps.notices.notify(CLAIMABLE);
      if (!isEnded(change.value)) continue;
      this.deps.notices.notify(jobEnded(change.value.id));
      this.deps.notices.notify(targetFreed(change.value.target));
    }
  }

  /** Stuck jobs stay: they are somebody's work. */
  async sweep(): Promise<number> {
    const before = new Date(this.deps.clock.now() - this.deps.retentionMs).toISOString();
    let deleted = 0;
    for (;;) {
      const old = await this.deps.moray.list<Job>(JOBS, `(&(endedAt<=${before})(|(execution=succeeded)(execution=failed)(execution=canceled)))`, {limit: SWEEP_BATCH});
      if (!old.length) return deleted;
      await this.deps.moray.batch(old.map((row) => ({op: 'delete', bucket: JOBS, key: row.key, etag: row.etag})));
      deleted += old.length;
      if (this.stopping.signal.aborted || old.length < SWEEP_BATCH) return deleted;
    }
  }
}

async function* own(rows: AsyncIterable<Stored<Job>>, runnerId: string): AsyncIterable<Stored<Job>> {
  for await (const row of rows) if (row.value.lease?.runner === runnerId) yield row;
}

/** For callers that change a job without running it: read, decide, write under the etag, again where somebody was faster. */
export async function amend(moray: Moray, jobId: string, decide: (job: Job) => Parameters<typeof must>[1] | undefined): Promise<Job> {
  for (let n = 0; ; n += 1) {
    const stored = await moray.get<Job>(JOBS, jobId);
    const event = decide(stored.value);
    if (!event) return stored.value;
    try {
      return (await moray.put(JOBS, jobId, must(stored.value, event), {etag: stored.etag})).value;
    } catch (err) {
      if (n >= 20 || !isCetusError(err, 'etagConflict')) throw err;
    }
  }
}
