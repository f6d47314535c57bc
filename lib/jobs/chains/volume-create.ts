/**
 * volume.create: the name first, then, where the fleet has one node only, the directory on it; elsewhere the first container that uses
 * the volume places it. An existing volume of the name is the answer, as the Engine's.
 */
import {eq} from '../../moray/filter';
import type {BatchOp} from '../../moray/moray';
import type {TaskOutput} from '../../schema/agent';
import {targets, type VolumeCreateParams} from '../../schema/chains';
import type {Volume} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import type {Ctx, JobServices} from '../services';
import {eventPut, task, undoTask, usersOfVolume, VOLUMES} from '../steps';

interface Named { volume: Volume; existed: boolean }

export const create: Chain<VolumeCreateParams, JobServices> = {
  name: 'volume.create',
  version: 1,
  target: (params) => targets.volume(params.volume.id),
  steps: [
    {kind: 'plan', name: 'name', plan: name, undo: unname, onConflict: async () => 'replan'},
    {kind: 'act', name: 'ensure', do: ensure, undo: unensure},
    {kind: 'plan', name: 'created', plan: created},
  ],
  result: (outputs): Volume => outputs['created'] as Volume,
};

async function name(ctx: Ctx<VolumeCreateParams>): Promise<{output: Named; writes: BatchOp[]}> {
  const asked = ctx.params.volume;
  const [found] = await ctx.moray.list<Volume>(VOLUMES, eq('accountName', asked.accountName), {limit: 1});
  if (found) return {output: {volume: found.value, existed: true}, writes: []};
  const nodes = await ctx.services.fleet.nodes();
  const volume: Volume = {...asked, nodeId: nodes.length === 1 ? nodes[0]!.id : asked.nodeId};
  return {output: {volume, existed: false}, writes: [{op: 'put', bucket: VOLUMES, key: volume.id, value: volume, etag: null}]};
}

async function unname(ctx: Ctx<VolumeCreateParams>, output: unknown): Promise<{writes: BatchOp[]}> {
  const {volume, existed} = output as Named;
  const stored = existed ? undefined : await ctx.moray.peek<Volume>(VOLUMES, volume.id);
  if (!stored || (await usersOfVolume(ctx, volume.id)).length) return {writes: []};
  return {writes: [{op: 'delete', bucket: VOLUMES, key: volume.id, etag: stored.etag}]};
}

async function ensure(ctx: Ctx<VolumeCreateParams>): Promise<TaskOutput> {
  const {volume: {id, name: volumeName, account, options, within, nodeId}, existed} = ctx.outputs['name'] as Named;
  if (existed || !nodeId) return {};
  return task(ctx, nodeId, 'ensure', {kind: 'volume.ensure', volumeId: id, name: volumeName, account, options, ...(within === undefined ? {} : {within})});
}

async function unensure(ctx: Ctx<VolumeCreateParams>): Promise<void> {
  const {volume: {id, nodeId}, existed} = ctx.outputs['name'] as Named;
  if (existed || !nodeId || (await usersOfVolume(ctx, id)).length) return;
  await undoTask(ctx, nodeId, 'ensure', {kind: 'volume.remove', volumeId: id});
}

async function created(ctx: Ctx<VolumeCreateParams>): Promise<{output: Volume; writes: BatchOp[]}> {
  const {volume, existed} = ctx.outputs['name'] as Named;
  const stored = await ctx.moray.peek<Volume>(VOLUMES, volume.id);
  // An existing one that went away since is answered as it was when it was found.
  if (existed || !stored) return {output: volume, writes: []};
  const {mountpoint} = ctx.outputs['ensure'] as TaskOutput;
  const made: Volume = {...stored.value, mountpoint: mountpoint ?? stored.value.mountpoint};
  return {
    output: made,
    writes: [{op: 'put', bucket: VOLUMES, key: made.id, value: made, etag: stored.etag}, eventPut(ctx, made.account, 'volume', 'create', made.name, {driver: made.driver})],
  };
}
