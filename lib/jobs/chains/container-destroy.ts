/**
 * container.destroy: marked `removing` first, then taken from its node with its anonymous volumes, then forgotten: container, addresses, ports,
 * reservation, execs, in one batch. Where the node cannot, the container is what it was.
 *
 * One of which the node holds nothing that anybody could miss (`isInert`) is forgotten first: that commit is the answer, and the node is told
 * behind it until it has understood.
 */
import {CetusError, isCetusError} from '../../base/errors';
import {disconnectEvents} from '../../fleet/events';
import {holdsNothing, releaseLeases} from '../../fleet/observe';
import {eq} from '../../moray/filter';
import type {BatchOp, Stored} from '../../moray/moray';
import {BUCKETS} from '../../schema/buckets';
import {targets, type DestroyParams} from '../../schema/chains';
import type {Container} from '../../schema/container';
import type {Node} from '../../schema/node';
import type {Volume} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {reserve} from '../reservations';
import {NOTHING_RESERVED, type Ctx, type JobServices} from '../services';
import {container, containerPut, CONTAINERS, eventPut, isRunning, putContainer, task, usersOfVolume, VOLUMES} from '../steps';

/** `forgotten`: the container went with the mark. Jobs of before do not have it. */
interface Marked { nodeId: string; volumeIds: string[]; wasRunning: boolean; forgotten?: boolean }
interface Removed { volumeIds: string[] }

const END_REPORT_WAIT_MS = 400;
const END_REPORT_POLL_MS = 4;

export const destroy: Chain<DestroyParams, JobServices> = {
  name: 'container.destroy',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'mark', plan: mark, undo: unmark},
    {kind: 'act', name: 'remove', do: remove, timeoutMs: 120_000},
    {kind: 'plan', name: 'forget', plan: forget},
  ],
  result: () => null,
  decided: (outputs) => Boolean((outputs['mark'] as Marked | undefined)?.forgotten),
};

async function mark(ctx: Ctx<DestroyParams>): Promise<{output: Marked; writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const c = stored.value;
  if (isRunning(c) && !ctx.params.force) {
    const why = c.status === 'paused' ? 'container is paused and must be unpaused first' : `container is ${c.status}: stop the container before removing or force remove`;
    throw new CetusError('conflict', `cannot remove container "/${c.name}": ${why}`);
  }
  const volumes = ctx.params.removeVolumes ? await ownVolumes(ctx, c) : [];
  if (!volumes.length && isInert(c) && (await nodeOf(ctx, c.nodeId))?.liveness === 'alive')
    return {output: {nodeId: c.nodeId, volumeIds: [], wasRunning: false, forgotten: true}, writes: [...(await forgotten(ctx, stored)), ...farewell(ctx, c)]};
  return {
    output: {nodeId: c.nodeId, volumeIds: volumes.map((v) => v.key), wasRunning: isRunning(c)},
    writes: [
      putContainer(stored, {...c, status: 'removing'}),
      ...volumes.map((v): BatchOp => ({op: 'put', bucket: VOLUMES, key: v.key, value: {...v.value, removing: true}, etag: v.etag})),
    ],
  };
}

/**
 * Nothing of it runs, nothing can come to run without the control plane, and it has no port that a foreign program may want next. An answer may then
 * come before the node's: its name, places and volumes are free by the store's word alone, and what the node still keeps is in nobody's way.
 */
function isInert(c: Container): boolean {
  const policy = c.spec.hostConfig.RestartPolicy?.Name ?? '';
  return holdsNothing(c.observation) && !c.observation.wantsStart && !c.attachments.length && !c.requestedPorts.length && (policy === '' || policy === 'no');
}

/** Anonymous volumes that nobody else has come to use. */
export async function ownVolumes(ctx: Ctx<unknown>, c: Container): Promise<{key: string; etag: string; value: Volume}[]> {
  const found = [];
  for (const id of c.anonymousVolumeIds) {
    const volume = await ctx.moray.peek<Volume>(VOLUMES, id);
    if (volume && !(await usersOfVolume(ctx, id, c.id)).length) found.push(volume);
  }
  return found;
}

async function unmark(ctx: Ctx<DestroyParams>, output: unknown): Promise<{writes: BatchOp[]}> {
  const writes: BatchOp[] = [];
  const stored = await ctx.moray.peek<Container>(CONTAINERS, ctx.params.containerId);
  if (stored) writes.push(putContainer(stored, {...stored.value, status: stored.value.observation.status}));
  for (const id of (output as Marked).volumeIds) writes.push(...(await keepVolume(ctx, id)));
  return {writes};
}

async function keepVolume(ctx: Ctx<DestroyParams>, id: string): Promise<BatchOp[]> {
  const volume = await ctx.moray.peek<Volume>(VOLUMES, id);
  if (!volume) return [];
  const {removing: _mark, ...kept} = volume.value;
  return [{op: 'put', bucket: VOLUMES, key: id, value: kept, etag: volume.etag}];
}

async function remove(ctx: Ctx<DestroyParams>): Promise<Removed> {
  const {nodeId, volumeIds, forgotten} = ctx.outputs['mark'] as Marked;
  if (forgotten) {
    // Each try under a name of its own: the ledger would repeat a first refusal for ever. By force: nobody is left who could want it to run.
    await task(ctx, nodeId, `remove:${ctx.epoch}.${ctx.attempt}`, {kind: 'container.remove', containerId: ctx.params.containerId, force: true}, 110_000)
      .catch((err: unknown) => {
        // For an agent what is not there is removed: this is the node itself, which is no more.
        if (!isCetusError(err, 'notFound')) throw err;
      });
    return {volumeIds: []};
  }
  // Of a node that an operator gives up for good nobody is asked: what is there is lost, or the node is cut off from it.
  const node = await nodeOf(ctx, nodeId);
  if (!node || node.removing) return {volumeIds};
  await task(ctx, nodeId, 'remove', {kind: 'container.remove', containerId: ctx.params.containerId, force: ctx.params.force}, 110_000);
  const removed: string[] = [];
  for (const volumeId of volumeIds) {
    try {
      await task(ctx, nodeId, `remove.volume-${volumeId}`, {kind: 'volume.remove', volumeId});
      removed.push(volumeId);
    } catch (err) {
      // Worth another try while tries are left. After that the container goes, which cannot be taken back, and the volume stays visible.
      if (ctx.attempt < 3 && (isCetusError(err, 'unavailable') || isCetusError(err, 'timeout'))) throw err;
      ctx.log.warn({err, volumeId, containerId: ctx.params.containerId}, 'an anonymous volume could not be removed with its container');
    }
  }
  return {volumeIds: removed};
}

/** undefined: it is no more. One that is not known here yet may have joined at another endpoint. */
const nodeOf = (ctx: Ctx<DestroyParams>, nodeId: string): Promise<Node | undefined> => ctx.services.fleet.node(nodeId).catch(async (err: unknown) => {
  if (!isCetusError(err, 'notFound')) throw err;
  return (await ctx.moray.peek<Node>(BUCKETS.nodes.name, nodeId))?.value;
});

/**
 * Reports of a container that is gone are dropped, and with them the events of its end (`kill`, `die`) and the exit code that others wait for.
 * The node sends them while it answers us; they are given a moment to arrive.
 */
async function afterItsEnd(ctx: Ctx<DestroyParams>): Promise<Stored<Container> | undefined> {
  const {clock} = ctx.services;
  const untilMs = clock.now() + END_REPORT_WAIT_MS;
  for (;;) {
    const stored = await ctx.moray.peek<Container>(CONTAINERS, ctx.params.containerId, {fresh: true});
    if (!stored || holdsNothing(stored.value.observation) || clock.now() >= untilMs) return stored;
    await clock.sleep(END_REPORT_POLL_MS, ctx.signal);
  }
}

async function forget(ctx: Ctx<DestroyParams>): Promise<{writes: BatchOp[]}> {
  const {containerId} = ctx.params;
  const {volumeIds, wasRunning, forgotten: already} = ctx.outputs['mark'] as Marked;
  if (already) return {writes: []};
  const removed = new Set((ctx.outputs['remove'] as Removed).volumeIds);
  const stored = wasRunning ? await afterItsEnd(ctx) : await ctx.moray.peek<Container>(CONTAINERS, containerId);
  if (!stored) return {writes: []};
  const c = stored.value;
  const writes = await forgotten(ctx, stored);
  for (const id of volumeIds) {
    const volume = await ctx.moray.peek<Volume>(VOLUMES, id);
    if (volume && removed.has(id)) writes.push({op: 'delete', bucket: VOLUMES, key: id}, eventPut(ctx, c.account, 'volume', 'destroy', volume.value.name, {driver: volume.value.driver}));
    else writes.push(...(await keepVolume(ctx, id)));
  }
  return {writes: [...writes, ...farewell(ctx, c)]};
}

/** The container, and all that stands for it elsewhere. */
export async function forgotten(ctx: Ctx<unknown>, {key, etag, value: c}: Stored<Container>): Promise<BatchOp[]> {
  const reservation = await reserve(ctx, c.nodeId, c.id, {from: c.reservation, to: NOTHING_RESERVED});
  return [
    {op: 'delete', bucket: CONTAINERS, key, etag},
    ...releaseLeases(c.id),
    {op: 'deleteMany', bucket: BUCKETS.execs.name, filter: eq('containerId', c.id)},
    ...(reservation ? [reservation] : []),
  ];
}

export function farewell(ctx: Ctx<unknown>, c: Container): BatchOp[] {
  return [
    ...disconnectEvents(c, ctx.services.clock.nowNs()).map((e) => eventPut(ctx, e.account, e.type, e.action, e.actorId, e.attributes)),
    containerPut(ctx, c, 'destroy'),
  ];
}
