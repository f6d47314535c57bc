/**
 * What evacuate and move share: a container whose former node has provably nothing of it that runs gets another, with its id, name and addresses.
 *
 * From the commit of `place` on the container is assigned to the new node and marked `moving`: nothing of it runs anywhere, until `moved`. A chain that fails behind it takes back what it did on the new node and
 * leaves the mark; the evacuator (evacuator.ts) goes on from there, on any node.
 */
import {CetusError, isCetusError} from '../base/errors';
import {formatNs} from '../base/clock';
import {applyObservation} from '../fleet/observe';
import type {BatchOp, Stored} from '../moray/moray';
import type {TaskOutput} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {EvacuateParams, MovedResult} from '../schema/chains';
import type {Container} from '../schema/container';
import {type Node, type Remains, remainsKey} from '../schema/node';
import type {Image} from '../schema/objects';
import {hardwareOf, type PlacementDecision, type PlacementRequest} from '../schema/placement';
import type {PlanStep, Step} from '../workflow/chain';
import {hold} from './attach';
import {countHolders, holdOnNode} from './image-fetch';
import {isWanted, pinnedBy} from '../fleet/movable';
import {reserve} from './reservations';
import {NOTHING_RESERVED, type Ctx, type JobServices} from './services';
import {startAt} from './starting';
import {container, IMAGES, noteRemains, putContainer, task, undoTask} from './steps';

interface Placed extends MovedResult { placement: PlacementDecision }
type Moving = Ctx<EvacuateParams>;

const NODES = BUCKETS.nodes.name;

export function placeAnew(mayGo: (ctx: Moving, c: Container) => Promise<BatchOp[]>): PlanStep<EvacuateParams, JobServices> {
  return {kind: 'plan', name: 'place', plan: (ctx) => place(ctx, mayGo)};
}

export const runThere: Step<EvacuateParams, JobServices>[] = [
  {kind: 'act', name: 'run', timeoutMs: 600_000, do: run, undo: (ctx) => undoTask(ctx, placed(ctx).nodeId, 'run', {kind: 'container.remove', containerId: ctx.params.containerId, force: true})},
  {kind: 'plan', name: 'moved', plan: moved},
];

export function movedResult(outputs: Readonly<Record<string, unknown>>): MovedResult {
  const {nodeId, node} = outputs['place'] as Placed;
  return {nodeId, node};
}

const placed = (ctx: Moving): Placed => ctx.outputs['place'] as Placed;

/** The node as the store has it: what is decided from it is checked by the etag. */
export async function storedNode(ctx: Ctx<unknown>, nodeId: string): Promise<Stored<Node>> {
  const stored = await ctx.moray.peek<Node>(NODES, nodeId, {fresh: true});
  if (!stored) throw new CetusError('notFound', `node ${nodeId} not found`);
  return stored;
}

/** `conflict` where the container's former node may run it; else what must still hold when it is assigned elsewhere. */
export async function provenStopped(ctx: Moving, c: Container): Promise<BatchOp[]> {
  if (c.moving && !c.moving.leaving) return [];
  const {containerId, from} = ctx.params;
  if (c.nodeId !== from) throw new CetusError('conflict', `container ${containerId} is not on node ${from} any more`);
  if (c.status === 'removing' || c.status === 'dead') throw new CetusError('conflict', `container ${containerId} is being removed`);
  if (!c.reschedule) throw new CetusError('conflict', `container ${containerId} stays with its node: ${pinnedBy(c) ?? 'the node has not been told that it may go elsewhere'}`);
  if (!isWanted(c) && !c.moving) throw new CetusError('conflict', `container ${containerId} does not run: nothing is to be started`);
  const node = await storedNode(ctx, from);
  if (node.value.liveness !== 'fenced') throw new CetusError('conflict', `node ${node.value.name} is ${node.value.liveness}, not fenced: it may run container ${containerId}`);
  const remains: Remains = {nodeId: from, containerId, volumeIds: [], at: formatNs(ctx.services.clock.nowNs())};
  // A join changes it: then the node goes on with what is still its own. What it has of this one is noted: the container may be gone when the node is back.
  return [{op: 'check', bucket: NODES, key: from, etag: node.etag}, {op: 'put', bucket: BUCKETS.remains.name, key: remainsKey(from, containerId), value: remains}];
}

export async function placementOf(ctx: Ctx<unknown>, c: Container): Promise<PlacementRequest> {
  const image = await ctx.moray.peek<Image>(IMAGES, `${c.account}/${c.imageId}`);
  const hints = (kind: 'affinity' | 'constraint'): string[] => {
    // Checked when the container was created.
    const list = JSON.parse(c.labels[kind === 'affinity' ? 'com.docker.swarm.affinities' : 'com.docker.swarm.constraints'] ?? '[]') as string[];
    return list.map((e) => `${kind}:${e}`);
  };
  return {
    account: c.account, containerName: c.name, labels: c.labels, reservation: c.reservation, hardware: hardwareOf(c.spec.hostConfig),
    ...(image ? {platform: `${image.value.config.os}/${image.value.config.architecture}`} : {}), imageReference: c.imageReference, imageId: c.imageId, pinnedNodes: [],
    ports: c.requestedPorts.filter((p) => p.hostPort !== 0).map(({protocol, hostIp, hostPort}) => ({protocol, hostIp, hostPort})), expressions: [...hints('affinity'), ...hints('constraint')],
  };
}

async function place(ctx: Moving, mayGo: (ctx: Moving, c: Container) => Promise<BatchOp[]>): Promise<{output: Placed; writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const c = stored.value;
  const checks = await mayGo(ctx, c);
  const decision = ctx.services.placement.place(await placementOf(ctx, c));
  const {nodeId, node} = decision;
  const reservations = await moveReservation(ctx, c, nodeId);
  // Generations are the node's own: the next one begins anew.
  const {leaving: _gone, ...moving} = c.moving ?? {from: c.nodeId, since: formatNs(ctx.services.clock.nowNs()), start: true};
  const status = moving.start ? 'restarting' as const : 'exited' as const;
  const observation = {...c.observation, generation: 0, status, pid: 0, error: '', wantsStart: undefined, health: undefined};
  const next: Container = {...c, nodeId, node, status, observation, placement: decision, provisionJobId: ctx.job.id, moving};
  const places = await hold(ctx, next, c.attachments, c.publishedPorts);
  return {
    output: {nodeId, node, placement: decision},
    writes: [...checks, ...places.writes, ...reservations, putContainer(stored, {...next, attachments: places.attachments, publishedPorts: places.publishedPorts})],
  };
}

/** In the order of the nodes' ids: two containers that change places must not wait for each other. */
async function moveReservation(ctx: Moving, c: Container, to: string): Promise<BatchOp[]> {
  if (c.nodeId === to) return [];
  const writes: BatchOp[] = [];
  for (const nodeId of [c.nodeId, to].sort()) {
    const row = await reserve(ctx, nodeId, c.id, nodeId === to ? {from: NOTHING_RESERVED, to: c.reservation} : {from: c.reservation, to: NOTHING_RESERVED});
    if (row) writes.push(row);
  }
  return writes;
}

/** Made and started in one act: alone, neither is of use to anybody. */
async function run(ctx: Moving): Promise<TaskOutput> {
  const {nodeId} = placed(ctx);
  const {value: c} = await container(ctx, ctx.params.containerId);
  const counted = countHolders(ctx, c, await holdOnNode(ctx, nodeId, c, undefined));
  const {observation} = await task(ctx, nodeId, 'run.create', {kind: 'container.create', spec: c.spec, volumes: [], reschedule: true});
  const ran = c.moving?.start ? await startAt(ctx, c, 'run.start') : {observation};
  await counted;
  return ran;
}

async function moved(ctx: Moving): Promise<{writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const {observation} = ctx.outputs['run'] as TaskOutput;
  // Reports of the new node may have been faster: then only the mark goes.
  const seen = (observation && applyObservation(stored.value, observation)) ?? stored.value;
  const {moving: _over, ...there} = seen;
  return {writes: [putContainer(stored, there)]};
}

/** A task to a node that may be fenced meanwhile: of what is marked nothing runs there then, so it is done. */
export async function taskOrFenced(ctx: Ctx<unknown>, ...[nodeId, ...order]: [string, Parameters<typeof task>[2], Parameters<typeof task>[3], number?]): Promise<TaskOutput | undefined> {
  try {
    return await task(ctx, nodeId, ...order);
  } catch (err) {
    if (!isCetusError(err, 'unavailable') || err.info['liveness'] !== 'fenced') throw err;
    const [, body] = order;
    if (body.kind === 'container.remove') await noteRemains(ctx, nodeId, body.containerId, {containerId: body.containerId, volumeIds: []});
    return undefined;
  }
}
