/**
 * On which nodes an image is, must be, and comes to be. Pure; image-fetch, the chains of images and the keeper act on it. One word each: a holder
 * has the image; a giver can be asked for it now; a lasting holder counts as a copy (one that is only suspect may be back in a moment, one that is
 * being drained will not stay).
 */
import {createHash} from 'node:crypto';
import type {Peer} from '../schema/agent';
import type {Node} from '../schema/node';
import type {Image} from '../schema/objects';

export type NodeState = Pick<Node, 'id' | 'name' | 'liveness' | 'availability'> & {facts: Pick<Node['facts'], 'platform' | 'agentUrl'>};
export type Placed = Pick<Image, 'id' | 'nodes' | 'copies' | 'leaving'>;

/** More need not be asked. */
const MOST_PEERS = 8;
/** Of more givers only so many are weighed, from a place on that is another for each taker: in a fleet of thousands all of them would cost a taker 30 ms of hashing. */
const MOST_WEIGHED = 64;

/** The same order for everybody who asks about the same thing among the same nodes, and another for another thing: whoever must agree agrees without a word. */
export function rendezvous<T extends {id: string}>(key: string, nodes: readonly T[]): T[] {
  const weight = new Map(nodes.map((node) => [node.id, createHash('sha1').update(key).update('\0').update(node.id).digest('hex')]));
  return [...nodes].sort((a, b) => (weight.get(a.id)! < weight.get(b.id)! ? -1 : 1));
}

export const schedulable = (node: NodeState): boolean => node.liveness === 'alive' && node.availability === 'active';

/** An image that everybody uses is on as many nodes as there are: looking for each in its list is a look at every pair. */
function isHolder({nodes}: Placed): (node: NodeState) => boolean {
  const ids = new Set(nodes);
  return ({id}) => ids.has(id);
}

export function givers<N extends NodeState>(image: Placed, nodes: readonly N[], liveness: 'alive' | 'suspect' = 'alive'): N[] {
  const holds = isHolder(image);
  return nodes.filter((node) => node.liveness === liveness && holds(node));
}

export function lastingHolders<N extends NodeState>(image: Placed, nodes: readonly N[]): N[] {
  const holds = isHolder(image);
  return nodes.filter((node) => (node.liveness === 'alive' || node.liveness === 'suspect') && node.availability !== 'draining' && holds(node));
}

/** Whom `taker` asks for blobs. Takers begin with different ones, so that no giver serves all of them. */
export function peersOf(image: Placed, nodes: readonly NodeState[], taker: string, liveness: 'alive' | 'suspect' = 'alive'): Peer[] {
  const all = rendezvous(`${image.id} ${taker}`, someOf(givers(image, nodes, liveness).filter((node) => node.id !== taker), `${image.id} ${taker}`));
  return all.slice(0, MOST_PEERS).map(({id, facts}) => ({nodeId: id, url: facts.agentUrl}));
}

function someOf<T>(all: readonly T[], key: string): readonly T[] {
  if (all.length <= MOST_WEIGHED) return all;
  const from = createHash('sha1').update(key).digest().readUInt32BE(0) % all.length;
  return Array.from({length: MOST_WEIGHED}, (_, n) => all[(from + n) % all.length]!);
}

/** Where another copy may go, best first: what could run it before what can only keep it. */
export function candidates<N extends NodeState>(image: Placed & {platform?: string}, nodes: readonly N[]): N[] {
  const holds = isHolder(image);
  const free = nodes.filter((node) => schedulable(node) && !holds(node) && !image.leaving?.includes(node.id));
  const ordered = rendezvous(image.id, free);
  const runs = (node: N): boolean => image.platform === undefined || node.facts.platform === image.platform;
  return [...ordered.filter(runs), ...ordered.filter((node) => !runs(node))];
}

/** How many lasting copies it lacks: as many as it must have, as far as there are nodes for them. */
export function copiesLacking(image: Placed, nodes: readonly NodeState[]): number {
  const lasting = lastingHolders(image, nodes).length;
  const possible = lasting + candidates(image, nodes).length;
  return Math.max(0, Math.min(image.copies ?? 1, possible) - lasting);
}

/** Whether this node may let go of it: enough lasting copies stay, and never is it the last. In use or not is another question. */
export function mayLeave(image: Placed, nodes: readonly NodeState[], nodeId: string): boolean {
  const staying = lastingHolders({...image, nodes: image.nodes.filter((id) => id !== nodeId)}, nodes).length;
  return staying >= Math.max(1, image.copies ?? 1);
}

export interface Pressure { totalBytes: number; freeBytes: number }

/** Below so much free nodes are tidied, until so much is free. */
const LOW = 0.15;
const GOOD = 0.25;

/** What a node whose disk fills up lets go of, longest unused by name first; [] where there is room. `used`: image ids of the containers on it. */
export function toCollect(nodeId: string, disk: Pressure, images: readonly Image[], used: ReadonlySet<string>, nodes: readonly NodeState[]): Image[] {
  if (disk.totalBytes === 0 || disk.freeBytes >= disk.totalBytes * LOW) return [];
  let wanted = disk.totalBytes * GOOD - disk.freeBytes;
  const chosen: Image[] = [];
  const free = images.filter((image) => !image.removing && !used.has(`${image.account}/${image.id}`) && mayLeave(image, nodes, nodeId));
  for (const image of free.sort((a, b) => (a.lastTaggedAt < b.lastTaggedAt ? -1 : 1))) {
    if (wanted <= 0) break;
    chosen.push(image);
    // Layers that others share stay; what is freed less shows at the next look.
    wanted -= image.size + image.layers.reduce((sum, layer) => sum + layer.size, 0);
  }
  return chosen;
}
