/**
 * container.forget: the record of a container whose node is fenced goes, with its name, addresses, ports and reservation, in one commit with a note of what its node may still have (`remains`).
 * Of what is not marked for rescheduling a fenced node may run everything; its places are given to others nevertheless, for whoever asks for the removal has given the node up.
 *
 * container.clear: the node is back, and what is noted is taken away there. Under the lock of what it removes: a container of that id is by now nobody's, or its node's own again.
 */
import {CetusError} from '../../base/errors';
import {formatNs} from '../../base/clock';
import type {BatchOp} from '../../moray/moray';
import {BUCKETS} from '../../schema/buckets';
import {type ClearParams, type ForgetParams, targets} from '../../schema/chains';
import type {Container} from '../../schema/container';
import {type Remains, remainsKey} from '../../schema/node';
import type {Volume} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import {storedNode} from '../moving';
import type {Ctx, JobServices} from '../services';
import {container, CONTAINERS, eventPut, task, VOLUMES} from '../steps';
import {farewell, forgotten, ownVolumes} from './container-destroy';

const REMAINS = BUCKETS.remains.name;

export const forget: Chain<ForgetParams, JobServices> = {
  name: 'container.forget',
  version: 1,
  // Not the container's own: a job that waits for its node may hold that for as long as the node is away.
  target: (params) => `${targets.container(params.containerId)}/forget`,
  steps: [{kind: 'plan', name: 'forget', plan: letGoOf}],
  result: () => null,
};

async function letGoOf(ctx: Ctx<ForgetParams>): Promise<{writes: BatchOp[]}> {
  const {containerId, from, removeVolumes} = ctx.params;
  const stored = await container(ctx, containerId);
  const c = stored.value;
  const reached = (why: string): CetusError => new CetusError('conflict', `container ${containerId} ${why}`, {info: {reached: true}});
  if (c.nodeId !== from || c.moving) throw reached('is not on that node any more');
  const node = await storedNode(ctx, from);
  if (node.value.liveness !== 'fenced') throw reached(`is on node ${node.value.name}, which is ${node.value.liveness}, not fenced`);
  const volumes = removeVolumes ? await ownVolumes(ctx, c) : [];
  const remains: Remains = {nodeId: from, containerId, volumeIds: volumes.map((v) => v.key), at: formatNs(ctx.services.clock.nowNs())};
  return {
    writes: [
      // A join changes it: then it is the node that is asked.
      {op: 'check', bucket: BUCKETS.nodes.name, key: from, etag: node.etag},
      ...(await forgotten(ctx, stored)),
      ...volumes.flatMap((v): BatchOp[] => [{op: 'delete', bucket: VOLUMES, key: v.key, etag: v.etag}, eventPut(ctx, c.account, 'volume', 'destroy', v.value.name, {driver: v.value.driver})]),
      {op: 'put', bucket: REMAINS, key: remainsKey(from, containerId), value: remains},
      ...farewell(ctx, c),
    ],
  };
}

export const clear: Chain<ClearParams, JobServices> = {
  name: 'container.clear',
  version: 1,
  target: ({kind, id}) => targets[kind](id),
  steps: [{kind: 'act', name: 'clear', do: takeAway}, {kind: 'plan', name: 'cleared', plan: async (ctx) => ({writes: [{op: 'delete', bucket: REMAINS, key: keyOf(ctx)}]})}],
  result: () => null,
};

const keyOf = ({params: {nodeId, id}}: Ctx<ClearParams>): string => remainsKey(nodeId, id);

async function takeAway(ctx: Ctx<ClearParams>): Promise<void> {
  const {nodeId} = ctx.params;
  const stored = await ctx.moray.peek<Remains>(REMAINS, keyOf(ctx));
  if (!stored) return;
  const {containerId, volumeIds} = stored.value;
  // The ledger would repeat a first refusal for ever.
  const step = (what: string): string => `clear.${what}:${ctx.epoch}.${ctx.attempt}`;
  if (containerId !== undefined && (await ctx.moray.peek<Container>(CONTAINERS, containerId))?.value.nodeId !== nodeId)
    await task(ctx, nodeId, step('container'), {kind: 'container.remove', containerId, force: true});
  for (const volumeId of volumeIds)
    if (!(await ctx.moray.peek<Volume>(VOLUMES, volumeId))) await task(ctx, nodeId, step(volumeId), {kind: 'volume.remove', volumeId});
}
