/** What every chain does: read its object under the lock, give a task to a node, write an event. */
import {formatNs} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import {containerEvent, disconnectEvents, putEvent} from '../fleet/events';
import {applyObservation, letsGo, releaseLeases} from '../fleet/observe';
import {and, eq} from '../moray/filter';
import type {BatchOp, Stored} from '../moray/moray';
import type {TaskBody, TaskOutput} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {Container, ContainerObservation} from '../schema/container';
import type {ImageConfigFile} from '../schema/docker';
import {type Remains, remainsKey} from '../schema/node';
import type {DatacenterEvent, EventType} from '../schema/objects';
import type {Ctx} from './services';

export const CONTAINERS = BUCKETS.containers.name;
export const VOLUMES = BUCKETS.volumes.name;
export const NETWORKS = BUCKETS.networks.name;
export const IMAGES = BUCKETS.images.name;
export const ADDRESSES = BUCKETS.addresses.name;
export const PORTS = BUCKETS.ports.name;

// The engine's own time limit of a step comes first; this one is for a client that forgets the signal.
const TASK_DEADLINE_MS = 60_000;

// ---- the node

/** One step's order to a node. Repeated under the same name, it gets the first answer. */
export async function task(ctx: Ctx<unknown>, nodeId: string, step: string, body: TaskBody, deadlineMs = TASK_DEADLINE_MS): Promise<TaskOutput> {
  const agent = await ctx.services.fleet.agent(nodeId);
  return agent.task({jobId: ctx.job.id, step, epoch: ctx.epoch, requestId: ctx.requestId, body}, {deadlineMs, signal: ctx.signal});
}

/** An undo's order: each try has its own name, because the ledger would repeat a first refusal for ever. What is not there is undone. */
export async function undoTask(ctx: Ctx<unknown>, nodeId: string, step: string, body: TaskBody): Promise<void> {
  const tries = ctx.job.steps.find((s) => s.step === step.split('.')[0])?.tries ?? 0;
  try {
    await task(ctx, nodeId, `${step}:undo:${ctx.epoch}.${tries}`, body);
  } catch (err) {
    if (isCetusError(err, 'unavailable') && err.info['liveness'] === 'fenced' && await leftWithItsNode(ctx, nodeId, body)) return;
    if (!isCetusError(err, 'notFound')) throw err;
  }
}

/**
 * A fenced node runs nothing of what is marked, and asks before it does again: what was to be taken back there is. So is what was only being made, and what has been forgotten. What was to be removed is noted, and
 * taken away when the node is back: by then the container may be gone altogether, and nobody else would know that it is nobody's.
 */
async function leftWithItsNode(ctx: Ctx<unknown>, nodeId: string, body: TaskBody): Promise<boolean> {
  if (body.kind === 'volume.remove') return await noteRemains(ctx, nodeId, body.volumeId, {volumeIds: [body.volumeId]});
  if (!('containerId' in body)) return false;
  const c = (await ctx.moray.peek<Container>(CONTAINERS, body.containerId))?.value;
  if (c && !c.reschedule && !(body.kind === 'container.remove' && c.provisioning)) return false;
  return body.kind !== 'container.remove' || await noteRemains(ctx, nodeId, body.containerId, {containerId: body.containerId, volumeIds: []});
}

/** In a write of its own: acts have no other. Of a node that has just come back the note is read at the next look. */
export async function noteRemains(ctx: Ctx<unknown>, nodeId: string, id: string, what: Pick<Remains, 'containerId' | 'volumeIds'>): Promise<true> {
  await ctx.moray.put<Remains>(BUCKETS.remains.name, remainsKey(nodeId, id), {nodeId, ...what, at: formatNs(ctx.services.clock.nowNs())});
  return true;
}

// ---- containers

/** The container as it is now; `notFound` in the Engine's words, also while it is only being made. */
export async function container(ctx: Ctx<unknown>, id: string): Promise<Stored<Container>> {
  const stored = await ctx.moray.peek<Container>(CONTAINERS, id);
  if (!stored || stored.value.provisioning) throw new CetusError('notFound', `No such container: ${id}`);
  return stored;
}

export function putContainer(stored: Pick<Stored<Container>, 'key' | 'etag'>, value: Container): BatchOp {
  return {op: 'put', bucket: CONTAINERS, key: stored.key, value, etag: stored.etag};
}

export function isRunning(c: Container): boolean {
  return c.status === 'running' || c.status === 'paused' || c.status === 'restarting';
}

/** Writes that make the container what a task's answer says it is; none where a report was faster. */
export function observed(ctx: Ctx<unknown>, stored: Stored<Container>, observation: ContainerObservation | undefined): BatchOp[] {
  const after = observation && applyObservation(stored.value, observation);
  if (!after) return [];
  return [putContainer(stored, after), ...(letsGo(stored.value, observation) ? letGo(ctx, stored.value) : [])];
}

/** Leases and events of attachments that are emptied in the same batch. */
export function letGo(ctx: Ctx<unknown>, before: Container): BatchOp[] {
  return [...releaseLeases(before.id), ...disconnectEvents(before, ctx.services.clock.nowNs()).map((event, n) => put(ctx, event, n + 1))];
}

/** Containers other than this one that use the volume. */
export async function usersOfVolume(ctx: Ctx<unknown>, volumeId: string, except = ''): Promise<Container[]> {
  const rows = await ctx.moray.list<Container>(CONTAINERS, eq('volumeIds', volumeId));
  return rows.map((r) => r.value).filter((c) => c.id !== except);
}

export async function holderOfName(ctx: Ctx<unknown>, accountName: string): Promise<Container | undefined> {
  const [row] = await ctx.moray.list<Container>(CONTAINERS, eq('accountName', accountName), {limit: 1});
  return row?.value;
}

export async function usersOfImage(ctx: Ctx<unknown>, account: string, imageId: string): Promise<Container[]> {
  return (await ctx.moray.list<Container>(CONTAINERS, and(eq('account', account), eq('imageId', imageId)))).map((r) => r.value);
}

// ---- events

function put(ctx: Ctx<unknown>, event: DatacenterEvent, n = 0): BatchOp {
  // The job's id makes the key this job's own; the number keeps a job's events apart where the clock does not.
  return putEvent(event, `${ctx.job.id.slice(0, 8)}-${n}`);
}

export function containerPut(ctx: Ctx<unknown>, c: Container, action: string, attributes: Record<string, string> = {}): BatchOp {
  return put(ctx, containerEvent(c, action, attributes, ctx.services.clock.nowNs()));
}

/** As the Engine's: with the image's labels, of which a removed one has none any more. */
export function imagePut(ctx: Ctx<unknown>, account: string, action: string, config: ImageConfigFile | undefined, actorId: string, name: string): BatchOp {
  return eventPut(ctx, account, 'image', action, actorId, {...config?.config?.Labels, name});
}

export function eventPut(ctx: Ctx<unknown>, account: string, type: EventType, action: string, actorId: string, attributes: Record<string, string>, timeNs = ctx.services.clock.nowNs()): BatchOp {
  return put(ctx, {account, type, action, actorId, attributes, timeNs: timeNs.toString()});
}
