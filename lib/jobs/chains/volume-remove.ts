/** volume.remove: marked first, so that nobody can come to use it; then taken from its node; then forgotten. */
import {CetusError} from '../../base/errors';
import type {BatchOp} from '../../moray/moray';
import {targets, type VolumeRemoveParams} from '../../schema/chains';
import type {Volume} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import type {Ctx, JobServices} from '../services';
import {eventPut, task, usersOfVolume, VOLUMES} from '../steps';

export const remove: Chain<VolumeRemoveParams, JobServices> = {
  name: 'volume.remove',
  version: 1,
  target: (params) => targets.volume(params.volumeId),
  steps: [
    {kind: 'plan', name: 'mark', plan: mark, undo: unmark},
    {
      kind: 'act', name: 'remove',
      do: async (ctx) => {
        const {nodeId} = ctx.outputs['mark'] as {nodeId: string};
        if (nodeId) await task(ctx, nodeId, 'remove', {kind: 'volume.remove', volumeId: ctx.params.volumeId});
      },
    },
    {kind: 'plan', name: 'forget', plan: forget},
  ],
  result: () => null,
};

async function mark(ctx: Ctx<VolumeRemoveParams>): Promise<{output: {nodeId: string}; writes: BatchOp[]}> {
  const {volumeId} = ctx.params;
  const stored = await ctx.moray.peek<Volume>(VOLUMES, volumeId);
  // Forced, the Engine is content with a volume that is not there.
  if (!stored && ctx.params.force) return {output: {nodeId: ''}, writes: []};
  if (!stored) throw new CetusError('notFound', `get ${volumeId}: no such volume`);
  const users = await usersOfVolume(ctx, volumeId);
  if (users.length) throw new CetusError('conflict', `remove ${stored.value.name}: volume is in use - [${users.map((c) => c.id).join(', ')}]`);
  return {output: {nodeId: stored.value.nodeId}, writes: [{op: 'put', bucket: VOLUMES, key: volumeId, value: {...stored.value, removing: true}, etag: stored.etag}]};
}

async function unmark(ctx: Ctx<VolumeRemoveParams>): Promise<{writes: BatchOp[]}> {
  const stored = await ctx.moray.peek<Volume>(VOLUMES, ctx.params.volumeId);
  if (!stored) return {writes: []};
  const {removing: _mark, ...volume} = stored.value;
  return {writes: [{op: 'put', bucket: VOLUMES, key: stored.key, value: volume, etag: stored.etag}]};
}

async function forget(ctx: Ctx<VolumeRemoveParams>): Promise<{writes: BatchOp[]}> {
  const stored = await ctx.moray.peek<Volume>(VOLUMES, ctx.params.volumeId);
  if (!stored) return {writes: []};
  const {account, name, driver} = stored.value;
  return {writes: [{op: 'delete', bucket: VOLUMES, key: stored.key, etag: stored.etag}, eventPut(ctx, account, 'volume', 'destroy', name, {driver})]};
}
