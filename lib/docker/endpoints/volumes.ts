/** Volumes. */
import type {VolumeVerbs} from '../../datacenter/verbs';
import {readOptionalBody} from '../body';
import type {Exchange, Handlers} from '../exchange';
import {volumeView} from '../views/network';

async function list(x: Exchange): Promise<void> {
  const {volumes, warnings} = await x.datacenter.volumes.list(x.caller, x.query.filters());
  x.json(200, {Volumes: volumes.map((volume) => volumeView(volume)), Warnings: warnings.length ? warnings : null});
}

async function create(x: Exchange): Promise<void> {
  const body = await readOptionalBody<Parameters<VolumeVerbs['create']>[1]>(x, 'volumeCreate');
  x.json(201, volumeView(await x.datacenter.volumes.create(x.caller, body)));
}

async function inspect(x: Exchange): Promise<void> {
  x.json(200, volumeView(await x.datacenter.volumes.get(x.caller, x.param('name'))));
}

async function remove(x: Exchange): Promise<void> {
  await x.datacenter.volumes.remove(x.caller, x.param('name'), x.query.bool('force'));
  x.empty(204);
}

async function prune(x: Exchange): Promise<void> {
  // Older clients know of no volumes that a prune leaves for having a name.
  const filters = x.query.filters();
  const {deleted, spaceReclaimed} = await x.datacenter.volumes.prune(x.caller, x.speaks(42) ? filters : {...filters, all: ['true']});
  x.json(200, {VolumesDeleted: deleted, SpaceReclaimed: spaceReclaimed});
}

export const volumeHandlers: Handlers = {VolumeList: list, VolumeCreate: create, VolumeInspect: inspect, VolumeDelete: remove, VolumePrune: prune};
