/**
 * Declares nodes fenced, such that no renewal can have slipped in: the node is read, then all rows; each that names the node must say what was seen long ago, and is written without
 * it under its etag, in one batch with the node under the etag that it had BEFORE the rows were read. A node enters a row only by a write of the node, so a row that
 * was not read cannot name it. Where anything differs, nothing is fenced, and whoever called looks again.
 *
 * Called by the review only, of nodes that were silent for their fenceDelayMs.
 */
import {isCetusError} from '../base/errors';
import {ALL} from '../moray/filter';
import type {BatchOp, Moray, Stored} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import {type LeaseRow, type Node, REVIEWER} from '../schema/node';
import type {Renewals} from './renewals';

const LEASES = BUCKETS.leases.name;
const NODES = BUCKETS.nodes.name;

/** As the verdict saw it: `seenMs` is when the last sign of life was, as far as was known then; undefined: never. */
export interface Doomed { node: Stored<Node>; seenMs: number | undefined; reason: string; at: string }

export interface FencingView {
  moray: Moray;
  renewals: Renewals;
  /** A node that was found to be otherwise. */
  remember(node: Stored<Node>): void;
}

/** The nodes as they are now, of those that could be fenced. */
export async function fence({moray, renewals, remember}: FencingView, doomed: readonly Doomed[]): Promise<Stored<Node>[]> {
  const now = await Promise.all(doomed.map(({node}) => moray.peek<Node>(NODES, node.key)));
  const rows: Stored<LeaseRow>[] = [];
  for await (const row of moray.find<LeaseRow>(LEASES, ALL)) if (row.key !== REVIEWER) rows.push(row);
  const fenced: Stored<Node>[] = [];
  doomed.forEach(({node, seenMs, reason, at}, i) => {
    const found = now[i];
    if (found && found.etag !== node.etag) remember(found);
    // Whatever was seen since the verdict, by the feed or by a try before this one, it did not know.
    if (found?.etag !== node.etag || renewals.atMs(node.key) !== seenMs || !rows.every((row) => saysNothingNew(row, node.key, renewals))) return;
    fenced.push({...node, value: {...node.value, liveness: 'fenced', livenessReason: reason, livenessAt: at, fencedGeneration: node.value.facts.bootGeneration}});
  });
  for (const row of rows) renewals.row(row.key, row.value);
  if (!fenced.length) return [];
  const results = await moray.batch(fencingBatch(fenced, rows));
  return fenced.map((node, i) => ({...node, etag: results[i]!.etag!}));
}

/** As `fence`, one by one where some of them cannot be together: one that comes back must not save the others. */
export async function fenceAll(view: FencingView, doomed: readonly Doomed[]): Promise<Stored<Node>[]> {
  try {
    return await fence(view, doomed);
  } catch (err) {
    if (!isCetusError(err, 'etagConflict')) throw err;
  }
  const fenced: Stored<Node>[] = [];
  for (const one of doomed)
    fenced.push(...await fence(view, [one]).catch((err: unknown) => {
      if (isCetusError(err, 'etagConflict')) return [];
      throw err;
    }));
  return fenced;
}

function saysNothingNew(row: Stored<LeaseRow>, nodeId: string, renewals: Renewals): boolean {
  const count = row.value.renewals[nodeId];
  return count === undefined || renewals.knows(row.key, nodeId, count);
}

export function fencingBatch(nodes: readonly Stored<Node>[], rows: readonly Stored<LeaseRow>[]): BatchOp[] {
  const ids = new Set(nodes.map((node) => node.key));
  const named = rows.filter((row) => Object.keys(row.value.renewals).some((id) => ids.has(id)));
  return [
    ...nodes.map((node): BatchOp => ({op: 'put', bucket: NODES, key: node.key, value: node.value, etag: node.etag})),
    ...named.map((row): BatchOp => ({
      op: 'put', bucket: LEASES, key: row.key, etag: row.etag,
      value: {...row.value, renewals: Object.fromEntries(Object.entries(row.value.renewals).filter(([id]) => !ids.has(id)))},
    })),
  ];
}
