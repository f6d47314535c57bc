/**
 * Containers whose node is lost or fenced. Nothing of this is stored: what the store says of them is what was last known, and becomes the truth again when the node is back.
 *
 * Shown: one that ran is `dead`, for Docker's clients have no word for "nobody knows", and this one alone promises neither that it serves nor that it has ended; one that is
 * started elsewhere, once its node is fenced, is `restarting`. What did not run is what it was. All of them say which node it is.
 * Asked for anything that needs the node they answer at once. They can be forgotten when the node is fenced (chain container.forget).
 */
import {CetusError} from '../../base/errors';
import {goesElsewhere, isWanted, pinnedBy} from '../../fleet/movable';
import type {Container, ContainerStatus} from '../../schema/container';
import type {Node} from '../../schema/node';
import type {Context} from '../context';

export interface Lost {
  node: string;
  liveness: Node['liveness'];
  /** Why, and since when it is so; RFC 3339. */
  reason: string;
  since: string;
  /** What was last known. */
  was: ContainerStatus;
  /** It is started on another node once this one is fenced. */
  goesElsewhere: boolean;
  /** What keeps it from that, in words. */
  stays?: string;
}
/** A container as people are shown it: `status` is what it is taken for. */
export type SeenContainer = Container & {lost?: Lost};

type Knowing = Pick<Context, 'fleet'>;

/** Costs nothing while no node is away. */
export function seen(context: Knowing, c: Container): SeenContainer {
  const node = context.fleet.away?.get(c.nodeId);
  if (!node) return c;
  const {name, liveness, livenessReason, livenessAt} = node;
  const elsewhere = goesElsewhere(c) || (c.moving !== undefined && isWanted(c));
  const stays = elsewhere ? undefined : pinnedBy(c);
  const lost: Lost = {node: name, liveness, reason: livenessReason, since: livenessAt, was: c.status, goesElsewhere: elsewhere, ...(stays === undefined ? {} : {stays})};
  const wasUp = c.status === 'running' || c.status === 'paused' || c.status === 'restarting';
  return {...c, lost, status: wasUp ? (elsewhere ? 'restarting' : 'dead') : c.status};
}

export function allSeen(context: Knowing, containers: readonly Container[]): readonly SeenContainer[] {
  return context.fleet.away?.size ? containers.map((c) => seen(context, c)) : containers;
}

/** For what asks the node: `unavailable`, naming it, where it is not alive. One on its way between two nodes is no node's. */
export async function mustReach(context: Knowing, c: Container, what = `container ${c.name}`): Promise<void> {
  if (c.moving && !c.moving.leaving) return;
  const node = await nodeOf(context, c);
  if (node && node.liveness !== 'alive') throw unreached(node, what, goesElsewhere(c) ? '; it is started on another node once this one is fenced' : '');
}

export function unreached(node: Node, what: string, more = ''): CetusError {
  return new CetusError('unavailable', `${what} is on node ${node.name}, which is ${node.liveness}: ${node.livenessReason}${more}`, {info: {nodeId: node.id, liveness: node.liveness}});
}

/** Whoever waits for its end waits for nothing that would be told. */
export function endsUnheard(context: Knowing, c: Container): CetusError | undefined {
  const node = context.fleet.away?.get(c.nodeId);
  return node && isWanted(c) && !c.moving && !goesElsewhere(c) ? unreached(node, `container ${c.name}`, '; whether it still runs is not known') : undefined;
}

/** undefined: it is no member any more, or has not come through the feed yet. */
async function nodeOf(context: Knowing, c: Container): Promise<Node | undefined> {
  return context.fleet.node(c.nodeId).catch(() => undefined);
}
