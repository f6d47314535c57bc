/**
 * Capacity held on nodes. The row of a node is read fresh, checked against the node's capacity and written under its etag: the index that
 * placement decides from may be late, this may not. A container that asks for nothing has no place in the row: with its node's
 * other containers it would only queue up for it, and the row would grow with each.
 */
import {CetusError} from '../base/errors';
import type {BatchOp} from '../moray/moray';
import {DIMENSIONS as PARTS, WORD} from '../placement/filters/capacity';
import {BUCKETS} from '../schema/buckets';
import type {Reservation} from '../schema/container';
import type {NodeReservations} from '../schema/node';
import type {Ctx} from './services';
import {nodeView, NOTHING_RESERVED} from './services';

const BUCKET = BUCKETS.reservations.name;

/** The write that makes the container's reservation on the node `to`, where its record says that it holds `from`; undefined where nothing changes. */
export async function reserve(ctx: Ctx<unknown>, nodeId: string, containerId: string, {from, to}: {from: Reservation; to: Reservation}): Promise<BatchOp | undefined> {
  if (!asks(from) && !asks(to)) return undefined;
  await ctx.gate(`reservations/${nodeId}`);
  const stored = await ctx.moray.peek<NodeReservations>(BUCKET, nodeId);
  const now = stored?.value ?? {nodeId, total: NOTHING_RESERVED, containers: {}};
  const held = now.containers[containerId];
  if (!held && !asks(to)) return undefined;
  // Rows of before zero had its meaning are mended on the way.
  const containers = Object.fromEntries(Object.entries(now.containers).filter(([id, kept]) => id !== containerId && asks(kept)));
  if (asks(to)) containers[containerId] = to;
  // Summed up anew each time: a total that is carried along would carry every past mistake along.
  const total = Object.values(containers).reduce(add, NOTHING_RESERVED);
  const next: NodeReservations = {nodeId, total, containers};
  if (asks(to)) await verify(ctx, now, next, held);
  return {op: 'put', bucket: BUCKET, key: nodeId, value: next, etag: stored?.etag ?? null};
}

/** Tells placement's index what is true here, so that placing again sees it; `etagConflict` asks the engine to do so. */
async function verify(ctx: Ctx<unknown>, now: NodeReservations, next: NodeReservations, held: Reservation | undefined): Promise<void> {
  const node = await ctx.services.fleet.node(next.nodeId);
  const capacity = ctx.services.config.capacityOf(node);
  const grown = PARTS.filter((part) => next.total[part] > now.total[part]);
  const short = grown.filter((part) => next.total[part] > capacity[part]);
  ctx.services.placement.putNode(nodeView(node, short.length ? now : next, ctx.services.config));
  if (!short.length) return;
  const message = `node ${node.name} has not enough ${short.map((part) => WORD[part]).join(', ')} left`;
  if (held) throw new CetusError('conflict', message);
  throw new CetusError('etagConflict', message, {info: {bucket: BUCKET, key: next.nodeId}});
}

const asks = (reservation: Reservation): boolean => PARTS.some((part) => reservation[part] > 0);

function add(a: Reservation, b: Reservation): Reservation {
  return {memoryBytes: a.memoryBytes + b.memoryBytes, nanoCpus: a.nanoCpus + b.nanoCpus, diskBytes: a.diskBytes + b.diskBytes, pids: a.pids + b.pids};
}
