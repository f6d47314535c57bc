/** Containers, one question and one answer each; what streams is in streams.ts, what carries files in files.ts. */
import {CetusError} from '../../base/errors';
import type {CreateContainerBody, Resources, RestartPolicy} from '../../schema/docker';
import {parseBody, readBody} from '../body';
import {CREATE_CHANGES, fromOlder} from '../older-bodies';
import type {Exchange, Handler, Handlers} from '../exchange';
import {containerInspect} from '../views/container-inspect';
import {containerListEntry} from '../views/container-list';

/** Sizes are asked of the nodes; so many at a time. */
const SIZES_AT_ONCE = 8;

async function list(x: Exchange): Promise<void> {
  const limit = x.query.int('limit');
  const size = x.query.bool('size');
  const all = x.query.bool('all');
  const filters = x.query.filters();
  const containers = await x.datacenter.containers.list(x.caller, {all, size, filters, ...(limit && limit > 0 ? {limit} : {})});
  const linked = await x.datacenter.containers.linkNames(x.caller);
  const now = Date.now();
  if (!size) return x.json(200, containers.map((container) => containerListEntry(container, now, undefined, linked.get(container.id))));
  const rows: object[] = [];
  for (let at = 0; at < containers.length; at += SIZES_AT_ONCE) {
    const some = containers.slice(at, at + SIZES_AT_ONCE);
    rows.push(...await Promise.all(some.map(async (container) => containerListEntry(container, now, await x.datacenter.containers.size(x.caller, container), linked.get(container.id)))));
  }
  x.json(200, rows);
}

const MAC_ADDRESS = 'The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.';
const KERNEL_MEMORY = 'Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.';

async function create(x: Exchange): Promise<void> {
  const given = await x.readJsonRequired();
  const body = parseBody<CreateContainerBody>('containerCreate', given);
  if (Object.keys(body).every((field) => field === 'HostConfig' || field === 'NetworkingConfig')) throw new CetusError('invalid', 'config cannot be empty in order to create a container');
  fromOlder(body, CREATE_CHANGES, (minor) => x.speaks(minor));
  const networks = Object.keys(body.NetworkingConfig?.EndpointsConfig ?? {});
  if (networks.length > 1 && !x.speaks(44)) throw new CetusError('invalid', `Container cannot be connected to network endpoints: ${networks.join(', ')}`);
  const name = x.query.text('name').replace(/^\//, '') || undefined;
  const platform = x.speaks(41) ? x.query.text('platform') || undefined : undefined;
  const {id, warnings} = await x.datacenter.containers.create(x.caller, name, body, platform);
  const {KernelMemory = 0} = (given as {HostConfig?: {KernelMemory?: number}}).HostConfig ?? {};
  const more = [...(KernelMemory > 0 && !x.speaks(42) ? [KERNEL_MEMORY] : []), ...(body.MacAddress && x.speaks(44) ? [MAC_ADDRESS] : [])];
  x.json(201, {Id: id, Warnings: [...warnings, ...more]});
}

async function inspect(x: Exchange): Promise<void> {
  const container = await x.datacenter.containers.get(x.caller, x.param('id'));
  const size = x.query.bool('size') ? await x.datacenter.containers.size(x.caller, container) : undefined;
  const mountpoints = new Map<string, string>();
  const [execIds] = await Promise.all([x.datacenter.execs.open(x.caller, container), ...container.spec.mounts.map(async (m) => {
    if (m.type !== 'volume') return;
    // The volume may have been removed by force; its place is then simply not known.
    const volume = await x.datacenter.volumes.get(x.caller, m.name).catch(() => undefined);
    if (volume) mountpoints.set(m.name, volume.mountpoint);
  })]);
  x.json(200, containerInspect(container, {execIds, namesAmongAliases: !x.speaks(45), mountpointOf: (name) => mountpoints.get(name) ?? '', size}));
}

async function start(x: Exchange): Promise<void> {
  // A host config at start was removed from the API with 1.24.
  const body = await x.readJson();
  if (body && typeof body === 'object' && Object.keys(body).length)
    throw new CetusError('invalid', 'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24');
  await x.datacenter.containers.start(x.caller, x.param('id'));
  x.empty(204);
}

function ending(verb: 'stop' | 'restart'): Handler {
  return async (x) => {
    const timeoutSeconds = x.query.int('t');
    const signal = (x.speaks(42) && x.query.text('signal')) || undefined;
    await x.datacenter.containers[verb](x.caller, x.param('id'), {...(timeoutSeconds === undefined ? {} : {timeoutSeconds}), ...(signal ? {signal} : {})});
    x.empty(204);
  };
}

async function kill(x: Exchange): Promise<void> {
  await x.datacenter.containers.kill(x.caller, x.param('id'), x.query.text('signal') || 'SIGKILL');
  x.empty(204);
}

async function rename(x: Exchange): Promise<void> {
  const name = x.query.text('name').replace(/^\//, '');
  if (!name) throw new CetusError('invalid', 'Neither old nor new names may be empty');
  await x.datacenter.containers.rename(x.caller, x.param('id'), name);
  x.empty(204);
}

async function pause(x: Exchange): Promise<void> {
  await x.datacenter.containers.pause(x.caller, x.param('id'));
  x.empty(204);
}

async function unpause(x: Exchange): Promise<void> {
  await x.datacenter.containers.unpause(x.caller, x.param('id'));
  x.empty(204);
}

async function update(x: Exchange): Promise<void> {
  const {RestartPolicy: policy, ...resources} = await readBody<Resources & {RestartPolicy?: RestartPolicy}>(x, 'containerUpdate');
  // The CLI always sends a policy; an empty name means "leave it".
  const {warnings} = await x.datacenter.containers.update(x.caller, x.param('id'), resources, policy?.Name ? policy : undefined);
  x.json(200, {Warnings: warnings.length ? warnings : null});
}

async function remove(x: Exchange): Promise<void> {
  // The name of a link has a slash in it.
  await x.datacenter.containers.remove(x.caller, x.param('name'), {force: x.query.bool('force'), volumes: x.query.bool('v'), link: x.query.bool('link')});
  x.empty(204);
}

async function prune(x: Exchange): Promise<void> {
  const {deleted, spaceReclaimed} = await x.datacenter.containers.prune(x.caller, x.query.filters());
  x.json(200, {ContainersDeleted: deleted.length ? deleted : null, SpaceReclaimed: spaceReclaimed});
}

async function top(x: Exchange): Promise<void> {
  x.json(200, await x.datacenter.containers.top(x.caller, x.param('id'), x.query.text('ps_args') || '-ef'));
}

async function resize(x: Exchange): Promise<void> {
  const {height, width} = terminalSize(x);
  await x.datacenter.containers.resize(x.caller, x.param('id'), height, width);
  x.empty(200);
}

export function terminalSize(x: Exchange): {height: number; width: number} {
  const read = (name: string, word: string): number => {
    const raw = x.query.text(name);
    const value = Number(raw);
    if (!/^\d+$/.test(raw) || value > 0xffffffff) throw new CetusError('invalid', `invalid resize ${word} "${raw}": invalid syntax`);
    return value;
  };
  return {height: read('h', 'height'), width: read('w', 'width')};
}

export const containerHandlers: Handlers = {
  ContainerList: list,
  ContainerCreate: create,
  ContainerInspect: inspect,
  ContainerTop: top,
  ContainerResize: resize,
  ContainerStart: start,
  ContainerStop: ending('stop'),
  ContainerRestart: ending('restart'),
  ContainerKill: kill,
  ContainerUpdate: update,
  ContainerRename: rename,
  ContainerPause: pause,
  ContainerUnpause: unpause,
  ContainerDelete: remove,
  ContainerPrune: prune,
};
