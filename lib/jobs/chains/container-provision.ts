/**
 * container.provision: place, reserve, create on the node, show. The first commit takes the name (the container itself, marked
 * `provisioning`), the capacity and the new volumes' names; the last makes the container visible. Undone, nothing of it is left.
 */
import {CetusError} from '../../base/errors';
import {applyObservation} from '../../fleet/observe';
import {eq} from '../../moray/filter';
import type {BatchOp, Stored} from '../../moray/moray';
import {targets, type ProvisionParams, type ProvisionResult, type PullSecrets} from '../../schema/chains';
import type {Container, ContainerObservation, ResolvedMount} from '../../schema/container';
import type {Image, Volume} from '../../schema/objects';
import type {PlacementDecision} from '../../schema/placement';
import type {Chain} from '../../workflow/chain';
import {countHolders, holdOnNode} from '../image-fetch';
import {mayLeave} from '../marks';
import {reserve} from '../reservations';
import {NOTHING_RESERVED, type Ctx, type JobServices} from '../services';
import {containerPut, CONTAINERS, eventPut, holderOfName, IMAGES, task, undoTask, usersOfVolume, VOLUMES} from '../steps';

interface Placed extends ProvisionResult {
  /** Made by this job. */
  newVolumeIds: string[];
  /** For people: `cetus job show` tells the reasons also when the container is gone. */
  placement: PlacementDecision;
}
/** The draft with the ids of volumes that exist by now, those volumes, and the ones to make. */
interface Volumes { draft: ProvisionParams['container']; existing: Stored<Volume>[]; created: Volume[] }
interface Settled extends Volumes { decision: PlacementDecision; reservation: BatchOp | undefined }
interface Created { observation?: ContainerObservation; mountpoints: Record<string, string>; /** its node knows that it may go elsewhere */ marked?: boolean }

export const provision: Chain<ProvisionParams, JobServices> = {
  name: 'container.provision',
  version: 1,
  target: (params) => targets.container(params.container.id),
  steps: [
    {kind: 'plan', name: 'place', plan: place, undo: unplace, onConflict: nameTaken},
    {kind: 'act', name: 'create', do: create, undo: uncreate, timeoutMs: 600_000},
    {kind: 'plan', name: 'show', plan: show},
  ],
  result: (outputs): ProvisionResult => {
    const {containerId, nodeId, node} = outputs['place'] as Placed;
    return {containerId, nodeId, node};
  },
};

async function place(ctx: Ctx<ProvisionParams>): Promise<{output: Placed; writes: BatchOp[]}> {
  // Neither needs the other. Both are waited for, and where both have something to say the missing image is said.
  const reading = usableImage(ctx);
  reading.catch(() => undefined);
  const {draft, existing, created, decision, reservation} = await settle(ctx).catch(async (err: unknown) => {
    await reading;
    throw err;
  });
  const image = await reading;
  const {nodeId, node} = decision;
  const container: Container = {...draft, node, nodeId, placement: decision, provisionJobId: ctx.job.id, provisioning: true};
  return {
    output: {containerId: draft.id, nodeId, node, newVolumeIds: created.map((v) => v.id), placement: decision},
    writes: [
      {op: 'put', bucket: CONTAINERS, key: draft.id, value: container, etag: null},
      {op: 'check', bucket: IMAGES, key: image.key, etag: image.etag},
      ...(reservation ? [reservation] : []),
      ...created.map((v): BatchOp => ({op: 'put', bucket: VOLUMES, key: v.id, value: {...v, nodeId}, etag: null})),
      // Written, not only checked: a removal that counted the users before us must notice.
      ...existing.map((v): BatchOp => ({op: 'put', bucket: VOLUMES, key: v.key, value: {...v.value, nodeId: v.value.nodeId || nodeId}, etag: v.etag})),
    ],
  };
}

/** Volumes, a node and the room on it. */
async function settle(ctx: Ctx<ProvisionParams>): Promise<Settled> {
  const volumes = await resolveVolumes(ctx);
  const pinnedNodes = volumes.existing.filter((v) => v.value.nodeId).map((v) => ({nodeId: v.value.nodeId, volumeName: v.value.name}));
  const decision = ctx.services.placement.place({...ctx.params.placement, pinnedNodes});
  return {...volumes, decision, reservation: await reserve(ctx, decision.nodeId, volumes.draft.id, {from: NOTHING_RESERVED, to: volumes.draft.reservation})};
}

async function usableImage(ctx: Ctx<ProvisionParams>): Promise<Stored<Image>> {
  const {account, imageId, imageReference} = ctx.params.container;
  const image = await ctx.moray.peek<Image>(IMAGES, `${account}/${imageId}`);
  if (!image || image.value.removing) throw new CetusError('notFound', `No such image: ${imageReference}`);
  return image;
}

async function resolveVolumes(ctx: Ctx<ProvisionParams>): Promise<Volumes> {
  const {container, volumes} = ctx.params;
  const existing: Stored<Volume>[] = [];
  const created: Volume[] = [];
  const renamed = new Map<string, string>();
  for (const volume of volumes) {
    const [found] = await ctx.moray.list<Volume>(VOLUMES, eq('accountName', volume.accountName), {limit: 1});
    if (found) renamed.set(volume.id, found.key);
    else created.push(volume);
  }
  const idOf = (id: string): string => renamed.get(id) ?? id;
  const volumeIds = [...new Set(container.volumeIds.map(idOf))];
  for (const id of volumeIds) {
    if (created.some((v) => v.id === id)) continue;
    const volume = await ctx.moray.peek<Volume>(VOLUMES, id);
    if (!volume || volume.value.removing) throw new CetusError('notFound', `get ${volume?.value.name ?? id}: no such volume`);
    existing.push(volume);
  }
  const mounts = container.spec.mounts.map((m): ResolvedMount => (m.type === 'volume' ? {...m, volumeId: idOf(m.volumeId)} : m));
  return {draft: {...container, volumeIds, anonymousVolumeIds: container.anonymousVolumeIds.map(idOf), spec: {...container.spec, mounts}}, existing, created};
}

async function nameTaken(ctx: Ctx<ProvisionParams>, error: CetusError): Promise<'replan' | CetusError> {
  if (error.info['bucket'] !== CONTAINERS) return 'replan';
  const {name, accountName} = ctx.params.container;
  const holder = await holderOfName(ctx, accountName);
  if (!holder) return 'replan';
  return new CetusError('conflict', `Conflict. The container name "/${name}" is already in use by container "${holder.id}". `
    + 'You have to remove (or rename) that container to be able to reuse that name.', {cause: error, info: {name, containerId: holder.id}});
}

async function unplace(ctx: Ctx<ProvisionParams>, output: unknown): Promise<{writes: BatchOp[]}> {
  const {containerId, nodeId, newVolumeIds} = output as Placed;
  const writes: BatchOp[] = [{op: 'delete', bucket: CONTAINERS, key: containerId}];
  const reservation = await reserve(ctx, nodeId, containerId, {from: ctx.params.container.reservation, to: NOTHING_RESERVED});
  if (reservation) writes.push(reservation);
  for (const id of newVolumeIds) {
    const volume = await ctx.moray.peek<Volume>(VOLUMES, id);
    // Somebody else came to use it: it is theirs now. The etag notices one who comes at this moment.
    if (volume && !(await usersOfVolume(ctx, id, containerId)).length) writes.push({op: 'delete', bucket: VOLUMES, key: id, etag: volume.etag});
  }
  return {writes};
}

async function create(ctx: Ctx<ProvisionParams>): Promise<Created> {
  const {containerId, nodeId, node} = ctx.outputs['place'] as Placed;
  const [{value: container}, imageOn] = await Promise.all([
    ctx.moray.get<Container>(CONTAINERS, containerId), holdOnNode(ctx, nodeId, {...ctx.params.container, node}, ctx.secrets as PullSecrets | undefined),
  ]);
  const counted = countHolders(ctx, container, imageOn);
  const volumes = await Promise.all(container.volumeIds.map(async (id) => (await ctx.moray.get<Volume>(VOLUMES, id)).value));
  const mountpoints: Record<string, string> = {};
  for (const {id, mountpoint, ...volume} of volumes) {
    if (mountpoint) continue;
    const {mountpoint: made} = await task(ctx, nodeId, `create.volume-${id}`, {kind: 'volume.ensure', volumeId: id, ...forNode(volume)});
    if (made) mountpoints[id] = made;
  }
  const marked = await mayLeave(ctx, container);
  const {observation} = await task(ctx, nodeId, 'create', {
    kind: 'container.create', spec: container.spec, volumes: volumes.map((volume) => ({id: volume.id, ...forNode(volume)})), ...(marked ? {reschedule: true} : {}),
  });
  await counted;
  return {observation, mountpoints, ...(marked ? {marked} : {})};
}

function forNode({name, account, options, within}: Pick<Volume, 'name' | 'account' | 'options' | 'within'>): Pick<Volume, 'name' | 'account' | 'options' | 'within'> {
  return {name, account, options, ...(within === undefined ? {} : {within})};
}

async function uncreate(ctx: Ctx<ProvisionParams>): Promise<void> {
  const {containerId, nodeId, newVolumeIds} = ctx.outputs['place'] as Placed;
  await undoTask(ctx, nodeId, 'create', {kind: 'container.remove', containerId, force: true});
  for (const volumeId of newVolumeIds) {
    if (!(await usersOfVolume(ctx, volumeId, containerId)).length) await undoTask(ctx, nodeId, `create.volume-${volumeId}`, {kind: 'volume.remove', volumeId});
  }
}

async function show(ctx: Ctx<ProvisionParams>): Promise<{writes: BatchOp[]}> {
  const {containerId, newVolumeIds} = ctx.outputs['place'] as Placed;
  const {observation, mountpoints, marked} = ctx.outputs['create'] as Created;
  const stored = await ctx.moray.get<Container>(CONTAINERS, containerId);
  const {provisioning: _hidden, ...seen} = (observation && applyObservation(stored.value, observation)) ?? stored.value;
  const shown: Container = {...seen, ...(marked ? {reschedule: true} : {})};
  const writes: BatchOp[] = [{op: 'put', bucket: CONTAINERS, key: containerId, value: shown, etag: stored.etag}];
  for (const id of new Set([...newVolumeIds, ...Object.keys(mountpoints)])) {
    const volume = await ctx.moray.peek<Volume>(VOLUMES, id);
    if (!volume) continue;
    if (mountpoints[id]) writes.push({op: 'put', bucket: VOLUMES, key: id, value: {...volume.value, mountpoint: mountpoints[id]}, etag: volume.etag});
    if (newVolumeIds.includes(id)) writes.push(eventPut(ctx, shown.account, 'volume', 'create', volume.value.name, {driver: volume.value.driver}));
  }
  writes.push(containerPut(ctx, shown, 'create'));
  return {writes};
}
