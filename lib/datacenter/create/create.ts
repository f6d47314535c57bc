/**
 * From a create request to the chain container.provision: checks, merges, resolves names to ids, mints ids. What depends on the state of
 * the moment (the name is free, a node has room) the chain decides under its lock.
 */
import {formatNs, ZERO_TIME} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import {shortId} from '../../base/ids';
import {oneOf} from '../../moray/filter';
import {BUCKETS} from '../../schema/buckets';
import type {ContainerDraft, ProvisionParams} from '../../schema/chains';
import {type ContainerSpec, PROXY_PROTOCOL_LABEL, type ResolvedMount} from '../../schema/container';
import type {CreateContainerBody} from '../../schema/docker';
import type {Volume} from '../../schema/objects';
import {hardwareOf} from '../../schema/placement';
import type {Context} from '../context';
import {resolveContainer} from '../containers/resolve';
import {noSuchImage, resolveImage} from '../images/resolve';
import type {PredefinedNetworks} from '../networks-predefined';
import type {Caller} from '../verbs';
import {takeHints} from './hints';
import {reservationOf, settleHostConfig} from './hostconfig';
import {checkConfig, mergeConfig} from './merge';
import {inheritMounts, parseVolumesFrom, wantedMounts, type WantedMount} from './mounts';
import {checkName, randomName} from './names';
import {settleLinks} from './links';
import {settleNetworking} from './networking';
import {checkOptions} from './options';
import {checkPlatformText} from './platform';
import {requestedPorts} from './ports';
import {withProxyProtocol} from './proxy-protocol';

const MAX_RANDOM_NAMES = 6;

export async function createContainer(
  context: Context, predefined: PredefinedNetworks, caller: Caller, givenName: string | undefined, body: CreateContainerBody, platform?: string,
): Promise<{id: string; warnings: string[]}> {
  const name = givenName ? checkName(givenName) : undefined;
  checkOptions('Config', body, context.config);
  checkOptions('HostConfig', body.HostConfig ?? {}, context.config);
  const params = await draft(context, predefined, caller, body, platform);
  for (let attempt = 0; ; attempt += 1) {
    const named = withName(params, caller.account, name ?? randomName(context.ids.hex64(), attempt));
    try {
      const {containerId} = await context.run(caller, 'container.provision', named);
      context.views.touch(caller.account, containerId);
      return {id: containerId, warnings: warningsOf(body)};
    } catch (err) {
      // Two random names met; a name that a person gave is theirs to change.
      if (name !== undefined || attempt >= MAX_RANDOM_NAMES || !isCetusError(err, 'conflict') || !/container name/.test(err.message)) throw err;
    }
  }
}

function withName(params: ProvisionParams, account: string, name: string): ProvisionParams {
  const {container} = params;
  return {
    ...params,
    container: {...container, name, accountName: `${account}/${name}`, spec: {...container.spec, name}},
    placement: {...params.placement, containerName: name},
  };
}

function warningsOf(body: CreateContainerBody): string[] {
  const {OomKillDisable, Memory, NetworkMode, PortBindings, PublishAllPorts} = body.HostConfig ?? {};
  return [
    ...(OomKillDisable && !Memory ? ['OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.'] : []),
    ...(NetworkMode === 'host' && (PublishAllPorts || Object.keys(PortBindings ?? {}).length) ? ['Published ports are discarded when using host network mode'] : []),
  ];
}

async function draft(context: Context, predefined: PredefinedNetworks, caller: Caller, body: CreateContainerBody, platform?: string): Promise<ProvisionParams> {
  const {HostConfig: givenHost, NetworkingConfig: _, ...given} = body;
  if (!given.Image) throw new CetusError('invalid', 'no image specified');
  const {image, reference} = await resolveImage(context, caller.account, given.Image);
  if (image.removing) throw noSuchImage(given.Image);
  checkPlatform(given.Image, `${image.config.os}/${image.config.architecture}${image.config.variant ? `/${image.config.variant}` : ''}`, platform);

  const merged = mergeConfig(given, image.config.config ?? {});
  checkConfig(merged);
  const hinted = takeHints(merged);
  const host = settleHostConfig(givenHost ?? {}, context.config);
  const id = context.ids.hex64();
  const networking = await named(settleNetworking(context, predefined, caller, hinted.config, host, body));
  const hints = [...hinted.expressions];
  for (const key of ['IpcMode', 'PidMode'] as const) {
    if (!host[key]?.startsWith('container:')) continue;
    const shared = await named(resolveContainer(context, caller.account, host[key].slice('container:'.length)));
    host[key] = `container:${shared.id}`;
    hints.push(`constraint:node==${shared.nodeId}`);
  }
  const {links, linked} = await settleLinks(context, caller, host.Links ?? [], networking.networkMode);
  // A bridge is its node's.
  for (const other of networking.networkMode === 'bridge' ? linked : []) hints.push(`constraint:node==${other.nodeId}`);
  // Containers that share namespaces share a node. By the node's id, not by affinity: placement may not have heard yet of a container that was just made.
  if (networking.sharedNode) hints.push(`constraint:node==${networking.sharedNode}`);

  const config = {...hinted.config, ...(networking.specMode === 'networks' || networking.specMode === 'none' ? {Hostname: hinted.config.Hostname || shortId(id)} : networking.sharedNames ?? {})};
  const {mounts, volumes} = await settleMounts(context, caller, wantedMounts(host, config.Volumes, await inherited(context, caller, host.VolumesFrom ?? []), context.config));
  const asked = requestedPorts(host, config.ExposedPorts);
  const ports = withProxyProtocol(networking.specMode === 'networks' ? asked : [], config.Labels?.[PROXY_PROTOCOL_LABEL]);
  const nowNs = context.clock.nowNs();
  const createdAt = formatNs(nowNs);
  const reservation = reservationOf(host, context.config);
  const volumeMounts = mounts.filter((m) => m.type === 'volume');
  const labels = config.Labels ?? {};
  const spec: ContainerSpec = {
    id, account: caller.account, name: '', image: {id: image.id, reference: given.Image, manifestDigest: image.manifestDigest}, config,
    hostConfig: {...host, NetworkMode: networking.networkMode}, logConfig: host.LogConfig!, mounts, networkMode: networking.specMode, createdAt,
  };
  const container: ContainerDraft = {
    id, account: caller.account, name: '', accountName: '', ...(links.length ? {links} : {}), spec, imageReference: given.Image, imageId: image.id, status: 'created',
    observation: {containerId: id, generation: 0, status: 'created', pid: 0, exitCode: 0, error: '', oomKilled: false, startedAt: ZERO_TIME, finishedAt: ZERO_TIME, restartCount: 0},
    autoRemove: host.AutoRemove ?? false, labels, networks: networking.networks, attachments: [], requestedPorts: ports, publishedPorts: [],
    volumeIds: [...new Set(volumeMounts.map((m) => m.volumeId))], anonymousVolumeIds: volumeMounts.filter((m) => m.anonymous).map((m) => m.volumeId),
    reservation, createdAt, createdAtNs: nowNs.toString(),
  };
  return {
    container, volumes,
    placement: {
      account: caller.account, containerName: '', labels, reservation, hardware: hardwareOf(host), ...(platform ? {platform} : {}), imageReference: reference || given.Image, imageId: image.id,
      ports: ports.filter((p) => p.hostPort !== 0).map(({protocol, hostIp, hostPort}) => ({protocol, hostIp, hostPort})), expressions: hints,
    },
  };
}

/**
 * Another container or a network that the request names and that is not there. Clients take "not found" from create for a missing image: they
 * pull it and ask again, so only that is worded as such.
 */
async function named<T>(lookup: Promise<T>): Promise<T> {
  try {
    return await lookup;
  } catch (err) {
    throw isCetusError(err, 'notFound') ? new CetusError('invalid', err.message, {cause: err, shown: err.shown, info: err.info}) : err;
  }
}

function checkPlatform(reference: string, has: string, wanted: string | undefined): void {
  if (wanted) checkPlatformText(wanted);
  if (!wanted || wanted === has || has.startsWith(`${wanted}/`) || wanted.startsWith(`${has}/`) || has.startsWith('/')) return;
  // A bare word is an operating system or an architecture.
  if (!wanted.includes('/') && has.split('/').includes(wanted)) return;
  throw new CetusError('notFound', `image with reference ${reference} was found but its platform (${has}) does not match the specified platform (${wanted})`);
}

async function inherited(context: Context, caller: Caller, volumesFrom: string[]): Promise<WantedMount[]> {
  const lists = await Promise.all(volumesFrom.map(async (text) => {
    const {container, readOnly} = parseVolumesFrom(text);
    return inheritMounts((await named(resolveContainer(context, caller.account, container))).spec.mounts, readOnly);
  }));
  return lists.flat();
}

/** Existing volumes by name; drafts for the others. */
async function settleMounts(context: Context, caller: Caller, wanted: WantedMount[]): Promise<{mounts: ResolvedMount[]; volumes: Volume[]}> {
  const names = new Set(wanted.flatMap((m) => (m.type === 'volume' && m.volume.name ? [m.volume.name] : [])));
  const known = new Map<string, Volume>();
  if (names.size > 0) {
    for (const {value} of await context.moray.list<Volume>(BUCKETS.volumes.name, oneOf('accountName', [...names].map((n) => `${caller.account}/${n}`)))) known.set(value.name, value);
  }
  const drafts: Volume[] = [];
  const mounts = wanted.map((mount): ResolvedMount => {
    if (mount.type !== 'volume') return mount;
    const {volume, ...rest} = mount;
    let found = volume.name ? known.get(volume.name) : undefined;
    if (found?.removing) throw new CetusError('conflict', `volume ${found.name} is being removed`);
    if (!found) {
      found = volumeDraft(context, caller.account, volume.name || context.ids.hex64(), volume);
      known.set(found.name, found);
      drafts.push(found);
    }
    // A volume made by an image's VOLUME stays anonymous for the container that made it only.
    return {...rest, volumeId: found.id, name: found.name, anonymous: volume.anonymous};
  });
  return {mounts, volumes: drafts};
}

export function volumeDraft(context: Context, account: string, name: string, more: {labels: Record<string, string>; options: Record<string, string>; anonymous: boolean; within?: string}): Volume {
  return {
    id: context.ids.uuid(), account, name, accountName: `${account}/${name}`, driver: 'local', options: more.options, ...(more.within === undefined ? {} : {within: more.within}),
    labels: more.anonymous ? {'com.docker.volume.anonymous': '', ...more.labels} : more.labels, anonymous: more.anonymous, nodeId: '', mountpoint: '', createdAt: formatNs(context.clock.nowNs()),
  };
}
