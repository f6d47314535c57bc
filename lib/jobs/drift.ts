/**
 * Differences between what the store says of a node and what the node has: pure. A difference is not a finding yet: whatever is under way on the node or in the store looks like one. It counts
 * once two comparisons running have it (drift-keeper.ts).
 */
import {ZERO_TIME} from '../base/clock';
import type {Inventory} from '../schema/agent';
import type {Container} from '../schema/container';
import type {DriftFinding, Node} from '../schema/node';
import type {Image, Volume} from '../schema/objects';

/** What the store has of a node. The inventory is asked for before any of it is read: what is on the node and not here then has been removed, or was never ours. */
export interface Assigned {
  containers: readonly Container[];
  volumes: readonly Volume[];
  images: readonly Image[];
  /** Of containers on the node that are not among those: the store's word, if it has one. */
  elsewhere: ReadonlyMap<string, Container>;
  /** Containers and volumes that the node is about to be told to remove. */
  noted: ReadonlySet<string>;
}

/** `done` is filled in by whoever does something about it. */
export function compare(node: Pick<Node, 'id' | 'name'>, has: Inventory, assigned: Assigned): DriftFinding[] {
  const there = new Map(has.containers.map(({id, observation}) => [id, observation]));
  const found: DriftFinding[] = [];
  const say = (kind: DriftFinding['kind'], id: string, name: string, detail: string): void => void found.push({kind, id, name, detail, done: ''});

  const snapshots = new Set(has.snapshots);
  for (const c of assigned.containers) {
    if (c.provisioning || c.moving || c.status === 'removing' || c.status === 'dead') continue;
    const seen = there.get(c.id);
    if (!seen) {
      say('container.missing', c.id, c.accountName, `it is assigned to ${node.name}, which does not have it`);
      continue;
    }
    // Later ones are told by reports; of those that never come this is the only word.
    if (seen.generation > c.observation.generation && seen.status !== c.observation.status) say('container.state', c.id, c.accountName, `it is ${seen.status} there, ${c.observation.status} in the store`);
    if (seen.startedAt !== ZERO_TIME && !snapshots.has(c.id)) say('container.files', c.id, c.accountName, 'the snapshot with all that it had written is gone; another start would begin with the image\'s files');
  }
  const own = new Set(assigned.containers.map(({id}) => id));
  for (const [id, observation] of there) {
    if (own.has(id) || assigned.noted.has(id)) continue;
    const other = assigned.elsewhere.get(id);
    if (!other) say('container.unknown', id, '', `it is ${observation.status}, and the store knows nothing of it`);
    else if (!other.provisioning && other.nodeId !== node.id) say('container.moved', id, other.accountName, `it is ${observation.status} here, and assigned to ${other.node}`);
  }

  const volumes = new Set(has.volumes);
  const withoutFiles = new Set(has.lacking?.volumes);
  // One without a place of its own has never been used.
  for (const v of assigned.volumes) if (v.mountpoint !== '' && !v.removing && (!volumes.has(v.id) || withoutFiles.has(v.id))) say('volume.missing', v.id, v.accountName, 'its files are gone');
  const known = new Set(assigned.volumes.map(({id}) => id));
  for (const id of has.volumes) if (!known.has(id) && !assigned.noted.has(id)) say('volume.unknown', id, '', 'its files are there, and the store knows nothing of it');

  const images = new Set(has.images);
  const withoutBlobs = new Set(has.lacking?.images);
  for (const i of assigned.images) if (!i.removing && (!images.has(i.id) || withoutBlobs.has(i.id))) say('image.missing', `${i.account}/${i.id}`, i.repoDigests[0] ?? '', images.has(i.id) ? 'some of its blobs are gone' : 'it is gone');
  return found;
}

const same = (a: DriftFinding, b: DriftFinding): boolean => a.kind === b.kind && a.id === b.id;

/** What both have, as the later one says it. */
export function confirmed(first: readonly DriftFinding[], second: readonly DriftFinding[]): DriftFinding[] {
  return second.filter((finding) => first.some((before) => same(before, finding)));
}
