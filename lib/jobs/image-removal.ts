/**
 * What `docker rmi` does to one image: pure, after the rules of the Engine's image_delete.go (soft conflicts yield to force, hard ones never;
 * names of one repository go together; the last name takes the image along). Texts are the Engine's.
 */
import {CetusError} from '../base/errors';
import {shortId} from '../base/ids';
import type {Image} from '../schema/objects';
import {familiarName, familiarReference, parseReference} from '../schema/reference';
import type {ImageRemoveParams, ImageRemoveResult} from '../schema/chains';

export interface ImageFacts {
  image: Pick<Image, 'id' | 'repoDigests'>;
  /** Normalised tags that point at it. */
  tags: string[];
  users: {id: string; running: boolean}[];
  hasChildren: boolean;
}

export interface Removal { /** normalised */ untag: string[]; dropDigests: string[]; deleteImage: boolean; answer: ImageRemoveResult }

export function decideRemoval(facts: ImageFacts, params: ImageRemoveParams): Removal {
  const {image, tags, users} = facts;
  const digests = image.repoDigests;
  const names = [...tags.map((t) => nameOf(t)), ...digests.map((d) => nameOf(d))];
  if (params.reference) {
    if (!params.force && isSingle(tags, digests) && users[0]) {
      throw new CetusError('conflict', `conflict: unable to remove repository reference "${params.shown}" (must force) - container ${shortId(users[0].id)} is using its referenced image ${shortId(image.id)}`);
    }
    const remaining = tags.filter((t) => t !== params.reference);
    const repository = nameOf(params.reference);
    // A repository's digests are kept by its tags.
    const orphaned = remaining.some((t) => nameOf(t) === repository) ? [] : digests.filter((d) => nameOf(d) === repository);
    const kept = digests.filter((d) => !orphaned.includes(d));
    const untagged = {untag: tags.filter((t) => t === params.reference), dropDigests: orphaned};
    const answer = untaggedLines(untagged.untag, orphaned);
    if (remaining.length || kept.length) return {...untagged, deleteImage: false, answer};
    // The name is gone as asked; whether the image goes too is a question, not a demand: conflicts keep it, silently.
    if (conflictOf(facts, {force: params.force, references: 0})) return {...untagged, deleteImage: false, answer};
    return {...untagged, deleteImage: true, answer: [...answer, {Deleted: image.id}]};
  }
  const together = params.unused || (names.length > 0 && isSingle(tags, digests) && !params.nameless);
  const conflict = conflictOf(facts, {force: params.force, references: together ? 0 : names.length});
  if (conflict) throw conflict;
  return {untag: tags, dropDigests: digests, deleteImage: true, answer: [...untaggedLines(tags, digests), {Deleted: image.id}]};
}

function conflictOf(facts: ImageFacts, {force, references}: {force: boolean; references: number}): CetusError | undefined {
  const refuse = (hard: boolean, why: string): CetusError =>
    new CetusError('conflict', `conflict: unable to delete ${shortId(facts.image.id)} (${hard ? 'cannot be forced' : 'must be forced'}) - ${why}`);
  if (facts.hasChildren) return refuse(true, 'image has dependent child images');
  const running = facts.users.find((u) => u.running);
  if (running) return refuse(true, `image is being used by running container ${shortId(running.id)}`);
  if (force) return undefined;
  if (references > 0) return refuse(false, 'image is referenced in multiple repositories');
  const [stopped] = facts.users;
  return stopped && refuse(false, `image is being used by stopped container ${shortId(stopped.id)}`);
}

/** All names are of one repository: at most one tag, and digests of its repository only. */
function isSingle(tags: string[], digests: string[]): boolean {
  if (tags.length + digests.length <= 1) return true;
  if (tags.length > 1) return false;
  const repositories = new Set([...tags, ...digests].map(nameOf));
  return repositories.size === 1;
}

function nameOf(reference: string): string {
  return familiarName(parseReference(reference));
}

function untaggedLines(tags: string[], digests: string[]): ImageRemoveResult {
  return [...tags.map((t) => familiarReference(parseReference(t))), ...digests].map((name) => ({Untagged: name}));
}
