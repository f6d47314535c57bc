/** Images as clients are shown them: with their names, how many containers use them, what they share; and which of them a filter means. */
import {createHash} from 'node:crypto';
import {CetusError} from '../../base/errors';
import {compilePattern} from '../../base/pattern';
import {and, eq} from '../../moray/filter';
import {BUCKETS} from '../../schema/buckets';
import type {Image, ImageRef} from '../../schema/objects';
import {familiarName, familiarReference, parseReference} from '../../schema/reference';
import type {Context} from '../context';
import {acceptFilters, booleanFilter, has, labelsMatch, untilFilter, valuesOf} from '../filters';
import type {Caller, Filters, ImageHistory, ListedImage} from '../verbs';
import {checkPlatform, type WantedPlatform} from './platform';
import {imageKey, resolveImage} from './resolve';

const IMAGES = BUCKETS.images.name;
const REFS = BUCKETS.image_refs.name;
/** Of a chain of parents; no image has more layers. */
const MAX_ANCESTORS = 1_000;

export async function allImages(context: Context, caller: Caller): Promise<ListedImage[]> {
  const {moray} = context;
  const [images, refs, containers] = await Promise.all([
    moray.list<Image>(IMAGES, eq('account', caller.account)), moray.list<ImageRef>(REFS, eq('account', caller.account)), context.views.list(caller.account),
  ]);
  const references = grouped(refs.map(({value}) => [value.imageId, value.reference]));
  const users = grouped(containers.map((c) => [c.imageId, c.id]));
  return images.map(({value}) => {
    const usedBy = users.get(value.id) ?? [];
    return {image: value, references: (references.get(value.id) ?? []).sort(), containers: usedBy.length, usedBy};
  });
}

/** Newest first. Images that only others are made from are shown where `all` asks for them, as by the Engine. */
export async function listImages(context: Context, caller: Caller, {all, filters, sharedSize, usedBy}: {all: boolean; filters: Filters; sharedSize?: boolean; usedBy?: boolean}): Promise<ListedImage[]> {
  const select = await listFilter(context, caller, filters);
  const every = await allImages(context, caller);
  const parents = new Set(every.map(({image}) => image.parent));
  const shared = sharedSize ? sharedSizes(every.map(({image}) => image)) : undefined;
  return every.flatMap(({usedBy: users, ...image}) => {
    const listed: ListedImage = usedBy ? {...image, usedBy: users} : image;
    const nameless = listed.references.length === 0 && listed.image.repoDigests.length === 0;
    if (!all && nameless && parents.has(listed.image.id)) return [];
    return select(shared ? {...listed, sharedSize: shared.get(listed.image.id)!} : listed) ?? [];
  }).sort((a, b) => createdMs(b.image) - createdMs(a.image));
}

export async function getImage(context: Context, caller: Caller, nameOrId: string, {platform}: {platform?: WantedPlatform} = {}): Promise<ListedImage> {
  const {image} = await resolveImage(context, caller.account, nameOrId);
  if (platform) checkPlatform(image, platform, nameOrId);
  const refs = await context.moray.list<ImageRef>(REFS, and(eq('account', caller.account), eq('imageId', image.id)));
  const usedBy = (await context.views.list(caller.account)).filter((c) => c.imageId === image.id).map((c) => c.id);
  return {image, references: refs.map((r) => r.value.reference).sort(), containers: usedBy.length, usedBy};
}

/** With the images that it was made from, as far as they are known here. */
export async function historyOf(context: Context, caller: Caller, nameOrId: string, options: {platform?: WantedPlatform} = {}): Promise<ImageHistory> {
  const listed = await getImage(context, caller, nameOrId, options);
  const ancestors: ImageHistory['ancestors'] = [];
  for (let {parent} = listed.image; parent && ancestors.length < MAX_ANCESTORS;) {
    const above = await context.moray.peek<Image>(IMAGES, imageKey(caller.account, parent));
    if (!above) break;
    const refs = await context.moray.list<ImageRef>(REFS, and(eq('account', caller.account), eq('imageId', parent)));
    ancestors.push({id: parent, references: refs.map((r) => r.value.reference).sort()});
    ({parent} = above.value);
  }
  return {...listed, ancestors};
}

/** Of each image, the bytes of those layers (in their place, on the same layers below) that another image has too. */
function sharedSizes(images: readonly Image[]): Map<string, number> {
  const chains = images.map(({layers}) => {
    const hash = createHash('sha256');
    return layers.map(({diffId, unpackedSize}) => ({chain: hash.update(diffId).copy().digest('hex'), unpackedSize}));
  });
  const uses = new Map<string, number>();
  for (const {chain} of chains.flat()) uses.set(chain, (uses.get(chain) ?? 0) + 1);
  return new Map(images.map(({id}, i) => [id, chains[i]!.reduce((sum, {chain, unpackedSize}) => sum + (uses.get(chain)! > 1 ? unpackedSize : 0), 0)]));
}

function grouped(pairs: [string, string][]): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const [key, value] of pairs) {
    const group = groups.get(key);
    if (group) group.push(value);
    else groups.set(key, [value]);
  }
  return groups;
}

export function createdMs(image: Image): number {
  const ms = Date.parse(image.createdAt);
  return Number.isNaN(ms) ? 0 : ms;
}

/** Which images, and of each which names: a filter by reference leaves out the others. */
async function listFilter(context: Context, caller: Caller, filters: Filters): Promise<(i: ListedImage) => ListedImage | undefined> {
  acceptFilters(filters, ['before', 'dangling', 'label', 'reference', 'since', 'until']);
  const dangling = booleanFilter(filters, 'dangling');
  const until = untilFilter(filters, context.clock.now());
  const bound = async (name: string): Promise<Image | undefined> => {
    const value = valuesOf(filters, name)[0];
    return value === undefined ? undefined : (await resolveImage(context, caller.account, value)).image;
  };
  const [before, since] = await Promise.all([bound('before'), bound('since')]);
  const byReference = has(filters, 'reference') ? valuesOf(filters, 'reference').map(referencePattern) : undefined;
  const selects = ({image, references}: ListedImage): boolean =>
    (dangling === undefined || (references.length === 0) === dangling)
    && labelsMatch(valuesOf(filters, 'label'), image.config.config?.Labels ?? {})
    && (until === undefined || createdMs(image) <= until)
    && (!before || createdMs(image) < createdMs(before)) && (!since || createdMs(image) > createdMs(since));
  return (listed) => {
    if (!selects(listed)) return undefined;
    if (!byReference) return listed;
    const references = listed.references.filter((r) => byReference.some((test) => test(r)));
    return references.length ? {...listed, references} : undefined;
  };
}

/** As the Engine's reference.FamiliarMatch: a glob over the familiar name, with or without the tag; * does not cross a slash, [a-z] is one of these. */
function referencePattern(glob: string): (reference: string) => boolean {
  const ONE_OF = /\[\^?[^\]\\]+\]/g;
  if (/[[\]]/.test(glob.replace(ONE_OF, ''))) throw new CetusError('invalid', 'syntax error in pattern');
  const source = glob.replace(/\[\^?[^\]\\]+\]|[.+^$(){}|\\*?]/g, (part) => (part === '*' ? '[^/]*' : part === '?' ? '[^/]' : part.length > 1 ? part : `\\${part}`));
  const pattern = compilePattern(`/^${source}$/`);
  return (reference) => {
    const parsed = parseReference(reference);
    return pattern.matches(familiarReference(parsed)) || pattern.matches(familiarName(parsed)) || pattern.matches(reference);
  };
}
