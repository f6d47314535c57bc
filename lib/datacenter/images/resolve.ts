/** From what a person writes to one image of the account, in the Engine's order: full id, name, name@digest, unique id prefix. */
import {CetusError} from '../../base/errors';
import {and, eq, startsWith} from '../../moray/filter';
import {BUCKETS} from '../../schema/buckets';
import type {Image, ImageRef} from '../../schema/objects';
import {familiarReference, formatReference, parseImageName, repositoryName, type Reference} from '../../schema/reference';
import type {Context} from '../context';

const IMAGES = BUCKETS.images.name;
const REFS = BUCKETS.image_refs.name;

export interface FoundImage {
  image: Image;
  /** The stored form of the name by which it was found; '' where it was found by id or digest. */
  reference: string;
}

export const imageKey = (account: string, imageId: string): string => `${account}/${imageId}`;
export const refKey = (account: string, reference: string): string => `${account}/${reference}`;

export function noSuchImage(text: string): CetusError {
  let shown = text;
  try {
    if (!/^sha256:/.test(text)) shown = familiarReference(parseImageName(text));
  } catch {
    // Not a reference: the person's own text is the best name for it.
  }
  return new CetusError('notFound', `No such image: ${shown}`);
}

export async function resolveImage(context: Pick<Context, 'moray'>, account: string, text: string): Promise<FoundImage> {
  const {moray} = context;
  const byId = /^(?:sha256:)?([0-9a-f]{64})$/.exec(text);
  if (byId) {
    const found = await moray.peek<Image>(IMAGES, imageKey(account, `sha256:${byId[1]}`));
    if (found) return {image: found.value, reference: ''};
    throw noSuchImage(text);
  }
  const reference = readReference(text);
  if (reference?.digest !== undefined) {
    const found = await byDigest(context, account, reference as Reference & {digest: string});
    if (found) return {image: found, reference: ''};
    throw noSuchImage(text);
  }
  if (reference) {
    const name = formatReference(reference);
    const ref = await moray.peek<ImageRef>(REFS, refKey(account, name));
    const image = ref && (await moray.peek<Image>(IMAGES, imageKey(account, ref.value.imageId)));
    if (image) return {image: image.value, reference: name};
  }
  const prefix = /^(?:sha256:)?([0-9a-f]+)$/.exec(text);
  if (prefix) {
    const found = await moray.list<Image>(IMAGES, and(eq('account', account), startsWith('id', `sha256:${prefix[1]}`)), {limit: 2});
    if (found.length === 1) return {image: found[0]!.value, reference: ''};
  }
  if (!reference && !prefix) throw new CetusError('invalid', 'invalid reference format');
  throw noSuchImage(text);
}

function readReference(text: string): Reference | undefined {
  try {
    return parseImageName(text);
  } catch (err) {
    // Upper case and the like are mistakes worth naming; hexadecimal prefixes are names too and parse.
    if (/^sha256:[0-9a-f]*$/.test(text)) return undefined;
    throw err;
  }
}

async function byDigest(context: Pick<Context, 'moray'>, account: string, reference: Reference & {digest: string}): Promise<Image | undefined> {
  const wanted = `${repositoryName(reference)}@${reference.digest}`;
  // Few images per account; an index over repoDigests would cost every pull for the sake of this rare question.
  for await (const {value} of context.moray.find<Image>(IMAGES, eq('account', account))) {
    if (value.repoDigests.some((d) => d === wanted || safeNormal(d) === wanted)) return value;
  }
  return undefined;
}

function safeNormal(text: string): string {
  try {
    return formatReference(parseImageName(text));
  } catch {
    return text;
  }
}
