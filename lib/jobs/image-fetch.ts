/** Brings an image to a node: which node, and the agent's streams read to their result. Credentials pass through and are kept nowhere. */
import type {Readable} from 'node:stream';
import {CetusError} from '../base/errors';
import type {BatchOp} from '../moray/moray';
import type {ImportLine, ImportRequest, LoadLine, NodeImage, PullLine} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {PullSecrets} from '../schema/chains';
import type {Container} from '../schema/container';
import type {Image, ImageRef} from '../schema/objects';
import {normalizeReference} from '../schema/reference';
import {formatNs} from '../base/clock';
import {NOTHING_RESERVED, type Ctx} from './services';
import {IMAGES, undoTask, usersOfImage} from './steps';

export const IMAGE_REFS = BUCKETS.image_refs.name;

/** The named node, or the one that placement likes best for something that weighs nothing. */
export async function chooseNode(ctx: Ctx<{account: string; node?: string; platform?: string; reference?: string}>): Promise<string> {
  const {account, node, platform, reference} = ctx.params;
  if (node) return (await ctx.services.fleet.node(node)).id;
  return ctx.services.placement.place({
    account, containerName: '', labels: {}, reservation: NOTHING_RESERVED, platform, imageReference: reference ?? '', imageId: '', pinnedNodes: [], ports: [], expressions: [],
  }).nodeId;
}

/** Passes progress on; the last line is the result. A stream without one was cut off. */
export async function readToResult<R extends {result: unknown}>(ctx: Ctx<unknown>, lines: AsyncIterable<R | object>, what: string): Promise<R['result']> {
  let result: R['result'] | undefined;
  for await (const line of lines) {
    if ('result' in line) result = (line as R).result;
    else ctx.progress(line);
  }
  if (result === undefined) throw new CetusError('unavailable', `${what}: the node's answer was cut off`);
  return result;
}

type Result<L> = L extends {result: unknown} ? L : never;

export async function pullTo(ctx: Ctx<unknown>, nodeId: string, request: {account: string; reference: string; platform?: string}, secrets: PullSecrets | undefined): Promise<{image: NodeImage; upToDate: boolean}> {
  const agent = await ctx.services.fleet.agent(nodeId);
  return readToResult<Result<PullLine>>(ctx, agent.pull(request, secrets?.auth, ctx.signal), `pull ${request.reference}`);
}

export async function loadTo(ctx: Ctx<unknown>, nodeId: string, archive: Readable, account: string, platform?: string): Promise<NodeImage[]> {
  const agent = await ctx.services.fleet.agent(nodeId);
  return (await readToResult<Result<LoadLine>>(ctx, agent.load(archive, ctx.signal, account, platform), 'load')).images;
}

/** `archive` where the request names no address. */
export async function importTo(ctx: Ctx<unknown>, nodeId: string, request: ImportRequest, archive: Readable | undefined): Promise<NodeImage> {
  const agent = await ctx.services.fleet.agent(nodeId);
  return (await readToResult<Result<ImportLine>>(ctx, agent.import(request, archive, ctx.signal), 'import')).image;
}

/** True where the node had to fetch the image first: by digest, so that it is the very same. */
export async function holdOnNode(ctx: Ctx<unknown>, nodeId: string, container: Pick<Container, 'account' | 'imageId' | 'imageReference' | 'node'>, secrets: PullSecrets | undefined): Promise<boolean> {
  const image = await ctx.moray.peek<Image>(IMAGES, `${container.account}/${container.imageId}`);
  if (!image) throw new CetusError('notFound', `No such image: ${container.imageReference}`);
  if (image.value.nodes.includes(nodeId)) return false;
  const [source] = image.value.repoDigests;
  if (!source) throw new CetusError('conflict', `image ${container.imageReference} exists only on other nodes than ${container.node}, and in no registry`);
  const {image: fetched} = await pullTo(ctx, nodeId, {account: container.account, reference: normalizeReference(source)}, secrets);
  if (fetched.imageId !== container.imageId) throw new CetusError('conflict', `image ${container.imageReference} on ${container.node} is ${fetched.imageId}, not ${container.imageId}`);
  return true;
}

export interface Arrival { account: string; nodeId: string; image: NodeImage; /** normalised; tags to point at it */ references: string[]; repoDigests?: string[]; /** image id that it was made from, where that is known */ parent?: string }

/** The writes that make an image of a node an image of the account. A tag that pointed elsewhere moves. */
export async function recordImage(ctx: Ctx<unknown>, arrival: Arrival): Promise<BatchOp[]> {
  const {account, nodeId, image, references, repoDigests = [], parent} = arrival;
  const key = `${account}/${image.imageId}`;
  const stored = await ctx.moray.peek<Image>(IMAGES, key);
  if (stored?.value.removing) throw new CetusError('etagConflict', `image ${image.imageId} is being removed`, {info: {bucket: IMAGES, key}});
  const now = formatNs(ctx.services.clock.nowNs());
  const base: Image = stored?.value ?? {
    id: image.imageId, account, manifestDigest: image.manifest.digest, manifestMediaType: image.manifest.mediaType, manifest: image.manifest, repoDigests: [],
    config: image.config, layers: image.layers, size: image.size, nodes: [], createdAt: image.config.created ?? '', addedAt: now, lastTaggedAt: now, ...(parent ? {parent} : {}),
  };
  const value: Image = {
    ...base,
    nodes: [...new Set([...base.nodes, nodeId])],
    repoDigests: [...new Set([...base.repoDigests, ...repoDigests])],
    lastTaggedAt: references.length ? now : base.lastTaggedAt,
  };
  return [
    {op: 'put', bucket: IMAGES, key, value, etag: stored?.etag ?? null},
    ...references.map((reference): BatchOp => {
      const ref: ImageRef = {account, reference, imageId: image.imageId, taggedAt: now};
      return {op: 'put', bucket: IMAGE_REFS, key: `${account}/${reference}`, value: ref};
    }),
  ];
}

/** The undo of `step`: takes the account's hold on a node away again, where the image never came to be the account's. */
export async function dropUnrecorded(ctx: Ctx<{account: string}>, step: string, nodeId: string, imageIds: string[]): Promise<void> {
  const {account} = ctx.params;
  for (const imageId of imageIds) {
    const stored = await ctx.moray.peek<Image>(IMAGES, `${account}/${imageId}`);
    if (stored?.value.nodes.includes(nodeId) || (await usersOfImage(ctx, account, imageId)).some((c) => c.nodeId === nodeId)) continue;
    await undoTask(ctx, nodeId, `${step}.${imageId}`, {kind: 'image.remove', imageId, account});
  }
}
