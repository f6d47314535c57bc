/** Brings an image to a node: which node, and the agent's streams read to their result. Credentials pass through and are kept nowhere. */
import type {Readable} from 'node:stream';
import {CetusError, isCetusError} from '../base/errors';
import type {BatchOp} from '../moray/moray';
import {eq} from '../moray/filter';
import type {EnsureLine, EnsureRequest, EnsureResult, ImportLine, ImportRequest, LoadLine, NodeImage, Peer, PeerComplaint, PullLine} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {FetchedImages, PullSecrets} from '../schema/chains';
import type {Container} from '../schema/container';
import type {ProgressMessage} from '../schema/docker';
import type {Node} from '../schema/node';
import type {Image, ImageRef} from '../schema/objects';
import {normalizeReference} from '../schema/reference';
import {formatNs} from '../base/clock';
import {candidates, copiesLacking, peersOf, rendezvous, schedulable} from './image-copies';
import {MOST_HOLDERS} from './image-holders';
import {NOTHING_RESERVED, type Ctx} from './services';
import {IMAGES, undoTask, usersOfImage} from './steps';

export const IMAGE_REFS = BUCKETS.image_refs.name;

/** Of what exists only inside: losing any one machine loses none of it. */
const INSIDE_COPIES = 2;
const COPY_TRIES = 3;
/** Accounts that have an image by the same name; who is beyond it is not asked. */
const MOST_NAMESAKES = 64;
const LEAVING_WAIT_MS = 30_000;
const LEAVING_POLL_MS = 50;

/**
 * The named node, or the one that placement likes best for something that weighs nothing. Where there are several, who pulls the same goes to the same
 * node, so that the registry is asked for each blob once, whoever asks: one that has an image of that name, else the one on which all agree.
 */
export async function chooseNode(ctx: Ctx<{account: string; node?: string; platform?: string; reference?: string}>): Promise<string> {
  const {account, node, platform, reference} = ctx.params;
  if (node) return (await ctx.services.fleet.node(node)).id;
  const preferred = reference === undefined ? undefined : await nodeForAll(ctx, account, reference);
  return ctx.services.placement.place({
    account, containerName: '', labels: {}, reservation: NOTHING_RESERVED, platform, imageReference: reference ?? '', imageId: '', pinnedNodes: [], ports: [],
    expressions: preferred ? [`constraint:node==~${preferred.name}`] : [],
  }).nodeId;
}

async function nodeForAll(ctx: Ctx<unknown>, account: string, reference: string): Promise<Node | undefined> {
  const nodes = await ctx.services.fleet.nodes();
  if (nodes.length < 2) return undefined;
  const free = nodes.filter(schedulable);
  const named = await imagesNamed(ctx, reference);
  const holders = (images: Image[]): Node[] => free.filter((node) => images.some((image) => image.nodes.includes(node.id)));
  const mine = holders(named.filter((image) => image.account === account));
  return rendezvous(reference, mine.length ? mine : holders(named).length ? holders(named) : free)[0];
}

/** Whoever's they are: their blobs are got only by who is told their digests by the registry. */
async function imagesNamed(ctx: Ctx<unknown>, reference: string): Promise<Image[]> {
  const refs = await ctx.moray.list<ImageRef>(IMAGE_REFS, eq('reference', reference), {limit: MOST_NAMESAKES});
  const images = await Promise.all(refs.map(({value}) => ctx.moray.peek<Image>(IMAGES, `${value.account}/${value.imageId}`)));
  return images.flatMap((image) => (image ? [image.value] : []));
}

/** Whom the node may ask before the registry, for a name; undefined where it is the only node. */
async function peersFor(ctx: Ctx<unknown>, nodeId: string, reference: string): Promise<Peer[] | undefined> {
  const nodes = await ctx.services.fleet.nodes();
  if (nodes.length < 2) return undefined;
  const holders = (await imagesNamed(ctx, reference)).flatMap((image) => image.nodes);
  return peersOf({id: reference, nodes: holders}, nodes, nodeId);
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
  const [agent, peers] = await Promise.all([ctx.services.fleet.agent(nodeId), peersFor(ctx, nodeId, request.reference)]);
  const result = await readToResult<Result<PullLine>>(ctx, agent.pull({...request, ...(peers ? {peers} : {})}, secrets?.auth, ctx.signal), `pull ${request.reference}`);
  tellComplaints(ctx, nodeId, result.complaints);
  return result;
}

/** This very image from other nodes, or where its registry is known and none of them gives it, from there. `said` gets the node's lines. */
export async function ensureOn(ctx: Ctx<unknown>, nodeId: string, request: EnsureRequest, secrets: PullSecrets | undefined, said: (line: ProgressMessage) => void = () => undefined): Promise<EnsureResult> {
  const agent = await ctx.services.fleet.agent(nodeId);
  const result = await readToResult<Result<EnsureLine>>({...ctx, progress: (line) => said(line as ProgressMessage)}, agent.ensure(request, secrets?.auth, ctx.signal), `image ${request.imageId}`);
  tellComplaints(ctx, nodeId, result.complaints);
  return result;
}

/** A node that lies has a broken disk, or is not ours: its operator must know. */
function tellComplaints(ctx: Ctx<unknown>, nodeId: string, complaints: PeerComplaint[] = []): void {
  for (const complaint of complaints) if (complaint.kind !== 'lacks') ctx.log[complaint.kind === 'lied' ? 'error' : 'warn']({takerId: nodeId, ...complaint}, 'a node did not give a blob of an image that it holds');
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

/** The nodes that have the image now and had not: [] where it was there. By its manifest's digest, so that it is the very same. */
export async function holdOnNode(ctx: Ctx<unknown>, nodeId: string, container: Pick<Container, 'account' | 'imageId' | 'imageReference' | 'node'>, secrets: PullSecrets | undefined): Promise<string[]> {
  const {account, imageId, imageReference} = container;
  const image = await settledImage(ctx, nodeId, `${account}/${imageId}`, imageReference);
  if (image.nodes.includes(nodeId)) return [];
  const nodes = await ctx.services.fleet.nodes();
  const request = {account, imageId, manifest: image.manifest, peers: peersOf(image, nodes, nodeId), ...registryOf(image)};
  if (request.peers.length > 0) {
    await ensureOn(ctx, nodeId, request, secrets);
    return [nodeId];
  }
  if (request.reference === undefined) {
    // Who has only fallen silent may answer yet.
    const silent = peersOf(image, nodes, nodeId, 'suspect');
    const away = (cause?: unknown): CetusError => new CetusError('conflict', `image ${imageReference} exists only on nodes that cannot be reached, and in no registry: ${container.node} cannot get it`, {cause, info: {nodes: image.nodes}});
    if (silent.length === 0) throw away();
    await ensureOn(ctx, nodeId, {...request, peers: silent}, secrets).catch((err: unknown) => { throw isCetusError(err, 'unavailable') ? away(err) : err; });
    return [nodeId];
  }
  return [nodeId, ...await throughLeader(ctx, nodeId, request, nodes, secrets)];
}

/** Nobody has it any more: of all nodes that want it now one asks the registry, and the others ask that one. */
async function throughLeader(ctx: Ctx<unknown>, nodeId: string, request: EnsureRequest, nodes: Node[], secrets: PullSecrets | undefined): Promise<string[]> {
  const [leader] = rendezvous(request.imageId, nodes.filter(schedulable));
  if (leader && leader.id !== nodeId) {
    try {
      await ensureOn(ctx, leader.id, request, secrets);
      await ensureOn(ctx, nodeId, {...request, peers: [{nodeId: leader.id, url: leader.facts.agentUrl}]}, secrets);
      return [leader.id];
    } catch (err) {
      ctx.log.warn({err, nodeId, leader: leader.id, imageId: request.imageId}, 'the node that was to fetch an image for others did not; it is fetched without it');
    }
  }
  await ensureOn(ctx, nodeId, request, secrets);
  return [];
}

/** The image, once nobody takes it away from this node any more. */
async function settledImage(ctx: Ctx<unknown>, nodeId: string, key: string, shown: string): Promise<Image> {
  const {clock} = ctx.services;
  const untilMs = clock.now() + LEAVING_WAIT_MS;
  for (;;) {
    const image = await ctx.moray.peek<Image>(IMAGES, key);
    if (!image) throw new CetusError('notFound', `No such image: ${shown}`);
    if (!image.value.leaving?.includes(nodeId)) return image.value;
    if (clock.now() >= untilMs) throw new CetusError('unavailable', `image ${shown} is being collected on the node, and that does not end`);
    await clock.sleep(LEAVING_POLL_MS, ctx.signal);
  }
}

/** Where a registry has it, by digest. */
export function registryOf({repoDigests: [source]}: Pick<Image, 'repoDigests'>): {reference?: string} {
  return source === undefined ? {} : {reference: normalizeReference(source)};
}

/**
 * What exists only inside is on a second node before anybody hears of it: where, by image id. Nothing to do on a fleet of one. unavailable: there are
 * nodes for it, and none of them could take it; then the first one's is dropped too, for half a promise is none.
 */
export async function copyElsewhere(ctx: Ctx<{account: string}>, step: string, nodeId: string, images: NodeImage[]): Promise<Record<string, string[]>> {
  const nodes = await ctx.services.fleet.nodes();
  if (nodes.length < 2) return {};
  const copies: Record<string, string[]> = {};
  try {
    for (const image of images) copies[image.imageId] ??= await copyOne(ctx, nodeId, image, nodes);
  } catch (err) {
    for (const id of [nodeId, ...Object.values(copies).flat()]) await dropUnrecorded(ctx, step, id, images.map((i) => i.imageId)).catch(() => undefined);
    throw err;
  }
  return copies;
}

async function copyOne(ctx: Ctx<{account: string}>, nodeId: string, {imageId, manifest, config}: NodeImage, nodes: Node[]): Promise<string[]> {
  const {account} = ctx.params;
  const stored = (await ctx.moray.peek<Image>(IMAGES, `${account}/${imageId}`))?.value;
  // The account has it by another manifest, or from a registry: what it has is kept as it is.
  if (stored && (stored.manifestDigest !== manifest.digest || stored.copies === undefined)) return [];
  const placed = {id: imageId, copies: INSIDE_COPIES, nodes: [...new Set([...stored?.nodes ?? [], nodeId])], platform: `${config.os}/${config.architecture}`};
  if (copiesLacking(placed, nodes) === 0) return [];
  let failure: unknown;
  for (const target of candidates(placed, nodes).slice(0, COPY_TRIES)) {
    const said = (line: ProgressMessage): void => { if (line.status === 'Downloading') ctx.progress({...line, status: `Copying to ${target.name}`}); };
    try {
      await ensureOn(ctx, target.id, {account, imageId, manifest, peers: peersOf(placed, nodes, target.id)}, undefined, said);
      return [target.id];
    } catch (err) {
      ctx.signal.throwIfAborted();
      ctx.log.warn({err, imageId, from: nodeId, to: target.id}, 'a copy of an image could not be made');
      failure = err;
    }
  }
  throw new CetusError('unavailable', `image ${imageId} could not be copied to a second node`, {cause: failure, shown: `image ${imageId} could not be copied to a second node: it would be lost with the only one that has it`});
}

export interface Arrival { account: string; nodeId: string; /** who got a copy before anybody was told */ alsoOn?: string[]; /** no registry has it */ inside?: boolean; image: NodeImage; /** normalised; tags to point at it */ references: string[]; repoDigests?: string[]; /** image id that it was made from, where that is known */ parent?: string }

/** The writes that make an image of a node an image of the account. A tag that pointed elsewhere moves. */
export async function recordImage(ctx: Ctx<unknown>, arrival: Arrival): Promise<BatchOp[]> {
  const {account, nodeId, alsoOn = [], inside = false, image, references, repoDigests = [], parent} = arrival;
  const key = `${account}/${image.imageId}`;
  const stored = await ctx.moray.peek<Image>(IMAGES, key);
  if (stored?.value.removing) throw new CetusError('etagConflict', `image ${image.imageId} is being removed`, {info: {bucket: IMAGES, key}});
  const now = formatNs(ctx.services.clock.nowNs());
  const base: Image = stored?.value ?? {
    id: image.imageId, account, manifestDigest: image.manifest.digest, manifestMediaType: image.manifest.mediaType, manifest: image.manifest, repoDigests: [],
    config: image.config, layers: image.layers, size: image.size, nodes: [], createdAt: image.config.created ?? '', addedAt: now, lastTaggedAt: now, ...(inside ? {copies: INSIDE_COPIES} : {}), ...(parent ? {parent} : {}),
  };
  // One that came by another manifest is not what the account has: its node does not count, and is tidied.
  const arrivedOn = base.manifestDigest === image.manifest.digest ? [nodeId, ...alsoOn] : [];
  const value: Image = {
    ...base,
    nodes: base.nodes.length >= MOST_HOLDERS ? base.nodes : [...new Set([...base.nodes, ...arrivedOn])],
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

/** The undo of an act that brought images: wherever they came to be. */
export async function dropFetched(ctx: Ctx<{account: string}>, step: string, output: unknown): Promise<void> {
  const {nodeId, images, copies = {}} = (output ?? {nodeId: '', images: []}) as FetchedImages;
  for (const {imageId} of images) for (const id of [nodeId, ...copies[imageId] ?? []]) await dropUnrecorded(ctx, step, id, [imageId]);
}

/** The undo of `step`: takes the account's hold on a node away again, where the image never came to be the account's. */
export async function dropUnrecorded(ctx: Ctx<{account: string}>, step: string, nodeId: string, imageIds: string[]): Promise<void> {
  const {account} = ctx.params;
  for (const imageId of imageIds) {
    const stored = await ctx.moray.peek<Image>(IMAGES, `${account}/${imageId}`);
    if (stored?.value.nodes.includes(nodeId) || (await usersOfImage(ctx, account, imageId)).some((c) => c.nodeId === nodeId)) continue;
    await undoTask(ctx, nodeId, `${step}.${nodeId}.${imageId}`, {kind: 'image.remove', imageId, account});
  }
}

/** Once the image is there (`holdOnNode`): resolves when its new nodes are counted. */
export function countHolders(ctx: Ctx<unknown>, {account, imageId}: Pick<Container, 'account' | 'imageId'>, nodeIds: readonly string[]): Promise<void> {
  const counted = ctx.services.holders.count(ctx.moray, `${account}/${imageId}`, nodeIds);
  // Awaited behind the node's work, which goes on meanwhile.
  counted.catch(() => undefined);
  return counted;
}
