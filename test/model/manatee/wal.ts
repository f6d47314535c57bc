/**
 * Write-ahead logs. A record is one object: where two logs hold the same object they hold the same bytes, and with it the same past. Postgres
 * does not know that: it compares timelines' numbers and places (`joins`), and so do our servers. The checker compares objects.
 */
import {formatLsn, type Lsn} from '../../../lib/manatee/lsn';

export interface Rec {
  /** Where it ends. */
  readonly lsn: number;
  readonly tli: number;
  readonly kind: 'init' | 'commit' | 'fork' | 'checkpoint';
  /** A commit's write. */
  readonly write: number;
  readonly before: Rec | null;
  /** In every log that has it. */
  readonly index: number;
  readonly atMs: number;
  text?: Lsn;
}

export interface Branch { tli: number; from: number }

const SIZES: Readonly<Record<Rec['kind'], number>> = {init: 0x100_0000, commit: 0x100, fork: 0x80, checkpoint: 0x80};

export function nextRecord(last: Rec | null, tli: number, kind: Rec['kind'], atMs: number, write = -1): Rec {
  return {lsn: (last?.lsn ?? 0) + SIZES[kind], tli, kind, write, before: last, index: last ? last.index + 1 : 0, atMs};
}

export const lsnText = (rec: Rec | undefined): Lsn => (rec ? (rec.text ??= formatLsn(BigInt(rec.lsn))) : '0/0');

/** One server's data directory, and the disk it lies on. */
export interface Disk {
  data: 'none' | 'present' | 'broken';
  systemId: string | null;
  log: Rec[];
  /** So many records are safe from a power cut; the others from the end of the process at most. */
  flushed: number;
  /** Oldest first; the last one is where it writes. */
  branches: Branch[];
  /** The highest timeline whose history file it has: a promotion takes the next number. */
  newestTli: number;
  /** Records before this one are recycled. */
  keptFrom: number;
  ran: 'primary' | 'standby' | 'never';
  restoredIn: number;
  /** Of the last openGate. */
  generation: number;
  /** Seen at the last attempts to stream. */
  diverged: boolean;
  full: boolean;
  /** On top of what a flush takes. */
  slowMs: number;
}

export const emptyDisk = (): Disk => ({
  data: 'none', systemId: null, log: [], flushed: 0, branches: [], newestTli: 0, keptFrom: 0, ran: 'never', restoredIn: 0, generation: 0, diverged: false, full: false, slowMs: 0,
});

export const holds = (disk: Disk, rec: Rec): boolean => rec.index < disk.flushed && disk.log[rec.index] === rec;
export const lastFlushed = (disk: Disk): Rec | undefined => disk.log[disk.flushed - 1];
export const currentTli = (disk: Disk): number => disk.branches.at(-1)?.tli ?? 0;

export type Joint =
  | {kind: 'from'; index: number}
  /** Not yet: the upstream is behind. */
  | {kind: 'ahead'}
  | {kind: 'diverged'; why: string}
  /** Number and place fit, and yet there is no record that ends there: what Postgres calls an invalid record, for ever. */
  | {kind: 'garbage'};

/** What a walsender says to a standby whose log ends at its last record, on its current timeline. */
export function joins(upstream: Disk, standby: Disk): Joint {
  const last = standby.log.at(-1);
  const tli = currentTli(standby);
  const place = last?.lsn ?? 0;
  const at = upstream.branches.findIndex((branch) => branch.tli === tli);
  if (at < 0) return {kind: 'diverged', why: `timeline ${tli} is not in its history`};
  const fork = upstream.branches[at + 1];
  if (fork && place > fork.from) return {kind: 'diverged', why: `timeline ${fork.tli} forked off at ${fork.from.toString(16)}, before ${place.toString(16)}`};
  if (place > (lastFlushed(upstream)?.lsn ?? 0)) return {kind: 'ahead'};
  const index = indexAt(upstream.log, place);
  if (index < 0) return {kind: 'garbage'};
  return index + 1 < upstream.keptFrom ? {kind: 'diverged', why: 'what it needs has been recycled'} : {kind: 'from', index: index + 1};
}

function indexAt(log: readonly Rec[], place: number): number {
  let low = 0;
  let high = log.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const {lsn} = log[middle]!;
    if (lsn === place) return middle;
    if (lsn < place) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}
