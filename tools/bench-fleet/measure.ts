/** What the rows measure with: percentiles, processor time and memory of processes, and what Postgres has committed. */
import fs from 'node:fs';
import pg from 'pg';

const TICK_MS = 10;

export interface Spread { p50: number; p99: number; mean: number; count: number }

export function spread(samples: readonly number[]): Spread {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;
  return {p50: at(0.5), p99: at(0.99), mean: sorted.reduce((sum, ms) => sum + ms, 0) / sorted.length, count: sorted.length};
}

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await work();
  return performance.now() - from;
}

/** `count` calls of `work`, `parallel` at a time, each with its number; the milliseconds that each took. The first that fails ends it. */
export async function inParallel(count: number, parallel: number, work: (n: number) => Promise<unknown>): Promise<number[]> {
  const samples: number[] = [];
  let next = 0;
  await Promise.all(Array.from({length: Math.min(parallel, count)}, async () => {
    while (next < count) {
      const n = next;
      next += 1;
      try {
        samples.push(await timed(() => work(n)));
      } catch (err) {
        next = count;
        throw err;
      }
    }
  }));
  return samples;
}

/** User and system time of these processes, and with `children` of all that they have begun, the ended ones too. */
export function cpuMs(pids: readonly number[], {children = false} = {}): number {
  return pids.reduce((sum, pid) => sum + ofProcess(pid, children), 0);
}

function ofProcess(pid: number, children: boolean): number {
  const stat = read(`/proc/${pid}/stat`);
  if (!stat) return 0;
  const [utime, stime, cutime, cstime] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(11, 15).map(Number);
  const own = (utime! + stime!) * TICK_MS;
  return children ? own + (cutime! + cstime!) * TICK_MS + childrenOf(pid).reduce((sum, child) => sum + ofProcess(child, true), 0) : own;
}

/** Proportional: pages that processes share are shared out. */
export function memoryMib(pids: readonly number[], {children = false} = {}): number {
  const all = children ? pids.flatMap((pid) => [pid, ...childrenOf(pid)]) : pids;
  return all.reduce((sum, pid) => sum + Number(/^Pss:\s+(\d+)/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0) / 1024, 0);
}

const childrenOf = (pid: number): number[] => read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean).map(Number);

function read(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return ''; // it ended meanwhile
  }
}

/** Write transactions that this server has begun (those that only read get no number), and the bytes of its databases. */
export async function storeCounts(url: string): Promise<{commits: number; bytes: number}> {
  const client = new pg.Client({connectionString: url});
  await client.connect();
  try {
    const {rows: [row]} = await client.query<{next: string; bytes: string}>('SELECT pg_snapshot_xmax(pg_current_snapshot()) AS next, (SELECT sum(pg_database_size(datname)) FROM pg_database) AS bytes');
    return {commits: Number(row!.next), bytes: Number(row!.bytes)};
  } finally {
    await client.end();
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function until(what: string, withinMs: number, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${withinMs / 1000} s: ${what}`);
    await sleep(100);
  }
}
