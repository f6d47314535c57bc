/**
 * container.destroy: marked `removing` first, then taken from its node with its anonymous volumes, then forgotten: container, addresses, ports,
 * reservation, execs, in one batch. Where the node cannot, the container is what it was.
 */
import {CetusError, isCetusError} from '../../base/errors';
import {disconnectEvents} from '../../fleet/events';
import {holdsNothing, releaseLeases} from '../../fleet/observe';
import {eq} from '../../moray/filter';
import type {BatchOp, Stored} from '../../moray/moray';
import {BUCKETS} from '../../schema/buckets';
import {targets, type DestroyParams} from '../../schema/chains';
import type {Container} from '../../schema/container';
import type {Volume} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {reserve} from '../reservations';
import {NOTHING_RESERVED, type Ctx, type JobServices} from '../services';
import {container, containerPut, CONTAINERS, eventPut, isRunning, putContainer, task, usersOfVolume, VOLUMES} from '../steps';

interface Marked { nodeId: string; volumeIds: string[]; wasRunning: boolean }
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
};

async function mark(ctx: Ctx<DestroyParams>): Promise<{output: Marked; writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const c = stored.value;
  if (isRunning(c) && !ctx.params.force) {
    const why = c.status === 'paused' ? 'container is paused and must be unpaused first' : `container is ${c.status}: stop the container before removing or force remove`;
    throw new CetusError('conflict', `cannot remove container "/${c.name}": ${why}`);
  }
  const volumes = ctx.params.removeVolumes ? await ownVolumes(ctx, c) : [];
  return {
    output: {nodeId: c.nodeId, volumeIds: volumes.map((v) => v.key), wasRunning: isRunning(c)},
    writes: [
      putContainer(stored, {...c, status: 'removing'}),
      ...volumes.map((v): BatchOp => ({op: 'put', bucket: VOLUMES, key: v.key, value: {...v.value, removing: true}, etag: v.etag})),
    ],
  };
}

/** Anonymous volumes that nobody else has come to use. */
async function ownVolumes(ctx: Ctx<DestroyParams>, c: Container): Promise<{key: string; etag: string; value: Volume}[]> {
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
  const {nodeId, volumeIds} = ctx.outputs['mark'] as Marked;
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
  const {nodeId, volumeIds, wasRunning} = ctx.outputs['mark'] as Marked;
  const removed = new Set((ctx.outputs['remove'] as Removed).volumeIds);
  const stored = wasRunning ? await afterItsEnd(ctx) : await ctx.moray.peek<Container>(CONTAINERS, containerId);
  if (!stored) return {writes: []};
  const c = stored.value;
  const reservation = await reserve(ctx, nodeId, containerId, {from: c.reservation, to: NOTHING_RESERVED});
  const writes: BatchOp[] = [
    {op: 'delete', bucket: CONTAINERS, key: containerId, etag: stored.etag},
    ...releaseLeases(containerId),
    {op: 'deleteMany', bucket: BUCKETS.execs.name, filter: eq('containerId', containerId)},
  ];
  if (reservation) writes.push(reservation);
  for (const id of volumeIds) {
    const volume = await ctx.moray.peek<Volume>(VOLUMES, id);
    if (volume && removed.has(id)) writes.push({op: 'delete', bucket: VOLUMES, key: id}, eventPut(ctx, c.account, 'volume', 'destroy', volume.value.name, {driver: volume.value.driver}));
    else writes.push(...(await keepVolume(ctx, id)));
  }
  for (const event of disconnectEvents(c, ctx.services.clock.nowNs())) writes.push(eventPut(ctx, event.account, event.type, event.action, event.actorId, event.attributes));
  writes.push(containerPut(ctx, c, 'destroy'));
  return {writes};
}
