/**
 * Every operation of the Engine API 1.51, and two that the Engine has besides, as data: what is answered, and by which group. server.ts mounts
 * exactly these rows; one without a handler stops the program at start.
 */
import {CetusError} from '../base/errors';

export type Group = 'system' | 'containers' | 'streams' | 'files' | 'exec' | 'images' | 'build' | 'volumes' | 'networks' | 'plugins' | 'swarm';

export interface Operation {
  /** The API's own operation id; also the name of the route. */
  id: string;
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  /** `{name}` stands for one or more path segments (image names contain slashes), any other placeholder for exactly one. */
  path: string;
  group: Group;
}

type Row = [id: string, method: Operation['method'], path: string];

const group = (name: Group, rows: Row[]): Operation[] => rows.map(([id, method, path]) => ({id, method, path, group: name}));

export const OPERATIONS: readonly Operation[] = [
  ...group('system', [
    ['SystemInfo', 'GET', '/info'],
    ['SystemVersion', 'GET', '/version'],
    ['SystemPing', 'GET', '/_ping'],
    ['SystemPingHead', 'HEAD', '/_ping'],
    ['SystemEvents', 'GET', '/events'],
    ['SystemDataUsage', 'GET', '/system/df'],
  ]),
  ...group('containers', [
    ['ContainerList', 'GET', '/containers/json'],
    ['ContainerCreate', 'POST', '/containers/create'],
    ['ContainerInspect', 'GET', '/containers/{id}/json'],
    ['ContainerTop', 'GET', '/containers/{id}/top'],
    ['ContainerResize', 'POST', '/containers/{id}/resize'],
    ['ContainerStart', 'POST', '/containers/{id}/start'],
    ['ContainerStop', 'POST', '/containers/{id}/stop'],
    ['ContainerRestart', 'POST', '/containers/{id}/restart'],
    ['ContainerKill', 'POST', '/containers/{id}/kill'],
    ['ContainerUpdate', 'POST', '/containers/{id}/update'],
    ['ContainerRename', 'POST', '/containers/{id}/rename'],
    ['ContainerPause', 'POST', '/containers/{id}/pause'],
    ['ContainerUnpause', 'POST', '/containers/{id}/unpause'],
    ['ContainerDelete', 'DELETE', '/containers/{name}'],
    ['ContainerPrune', 'POST', '/containers/prune'],
  ]),
  ...group('streams', [
    ['ContainerLogs', 'GET', '/containers/{id}/logs'],
    ['ContainerStats', 'GET', '/containers/{id}/stats'],
    ['ContainerAttach', 'POST', '/containers/{id}/attach'],
    ['ContainerAttachWebsocket', 'GET', '/containers/{id}/attach/ws'],
    ['ContainerWait', 'POST', '/containers/{id}/wait'],
  ]),
  ...group('files', [
    ['ContainerChanges', 'GET', '/containers/{id}/changes'],
    ['ContainerExport', 'GET', '/containers/{id}/export'],
    ['ContainerArchive', 'GET', '/containers/{id}/archive'],
    ['PutContainerArchive', 'PUT', '/containers/{id}/archive'],
    ['ContainerArchiveInfo', 'HEAD', '/containers/{id}/archive'],
  ]),
  ...group('exec', [
    ['ContainerExec', 'POST', '/containers/{id}/exec'],
    ['ExecStart', 'POST', '/exec/{id}/start'],
    ['ExecResize', 'POST', '/exec/{id}/resize'],
    ['ExecInspect', 'GET', '/exec/{id}/json'],
  ]),
  ...group('images', [
    ['ImageList', 'GET', '/images/json'],
    ['ImageCreate', 'POST', '/images/create'],
    ['ImageInspect', 'GET', '/images/{name}/json'],
    ['ImageHistory', 'GET', '/images/{name}/history'],
    ['ImageTag', 'POST', '/images/{name}/tag'],
    ['ImageDelete', 'DELETE', '/images/{name}'],
    ['ImagePrune', 'POST', '/images/prune'],
    ['ImageGet', 'GET', '/images/{name}/get'],
    ['ImageGetAll', 'GET', '/images/get'],
    ['ImageLoad', 'POST', '/images/load'],
    ['ImageCommit', 'POST', '/commit'],
    ['ImageSearch', 'GET', '/images/search'],
    ['DistributionInspect', 'GET', '/distribution/{name}/json'],
    ['SystemAuth', 'POST', '/auth'],
    ['ImagePush', 'POST', '/images/{name}/push'],
  ]),
  // The last two are not in the API's description; the Engine has them, and its clients use them.
  ...group('build', [
    ['ImageBuild', 'POST', '/build'],
    ['BuildPrune', 'POST', '/build/prune'],
    ['Session', 'POST', '/session'],
    ['BuildCancel', 'POST', '/build/cancel'],
    ['BuildControl', 'POST', '/grpc'],
  ]),
  ...group('volumes', [
    ['VolumeList', 'GET', '/volumes'],
    ['VolumeCreate', 'POST', '/volumes/create'],
    ['VolumeInspect', 'GET', '/volumes/{name}'],
    ['VolumeDelete', 'DELETE', '/volumes/{name}'],
    ['VolumePrune', 'POST', '/volumes/prune'],
    ['VolumeUpdate', 'PUT', '/volumes/{name}'],
  ]),
  ...group('networks', [
    ['NetworkList', 'GET', '/networks'],
    ['NetworkInspect', 'GET', '/networks/{id}'],
    ['NetworkDelete', 'DELETE', '/networks/{id}'],
    ['NetworkCreate', 'POST', '/networks/create'],
    ['NetworkConnect', 'POST', '/networks/{id}/connect'],
    ['NetworkDisconnect', 'POST', '/networks/{id}/disconnect'],
    ['NetworkPrune', 'POST', '/networks/prune'],
  ]),
  ...group('plugins', [
    ['PluginList', 'GET', '/plugins'],
    ['PluginInspect', 'GET', '/plugins/{name}/json'],
    ['GetPluginPrivileges', 'GET', '/plugins/privileges'],
    ['PluginPull', 'POST', '/plugins/pull'],
    ['PluginDelete', 'DELETE', '/plugins/{name}'],
    ['PluginEnable', 'POST', '/plugins/{name}/enable'],
    ['PluginDisable', 'POST', '/plugins/{name}/disable'],
    ['PluginUpgrade', 'POST', '/plugins/{name}/upgrade'],
    ['PluginCreate', 'POST', '/plugins/create'],
    ['PluginPush', 'POST', '/plugins/{name}/push'],
    ['PluginSet', 'POST', '/plugins/{name}/set'],
  ]),
  ...group('swarm', [
    ['NodeList', 'GET', '/nodes'],
    ['NodeInspect', 'GET', '/nodes/{id}'],
    ['NodeDelete', 'DELETE', '/nodes/{id}'],
    ['NodeUpdate', 'POST', '/nodes/{id}/update'],
    ['SwarmInspect', 'GET', '/swarm'],
    ['SwarmInit', 'POST', '/swarm/init'],
    ['SwarmJoin', 'POST', '/swarm/join'],
    ['SwarmLeave', 'POST', '/swarm/leave'],
    ['SwarmUpdate', 'POST', '/swarm/update'],
    ['SwarmUnlockkey', 'GET', '/swarm/unlockkey'],
    ['SwarmUnlock', 'POST', '/swarm/unlock'],
    ['ServiceList', 'GET', '/services'],
    ['ServiceCreate', 'POST', '/services/create'],
    ['ServiceInspect', 'GET', '/services/{id}'],
    ['ServiceDelete', 'DELETE', '/services/{id}'],
    ['ServiceUpdate', 'POST', '/services/{id}/update'],
    ['ServiceLogs', 'GET', '/services/{id}/logs'],
    ['TaskList', 'GET', '/tasks'],
    ['TaskInspect', 'GET', '/tasks/{id}'],
    ['TaskLogs', 'GET', '/tasks/{id}/logs'],
    ['SecretList', 'GET', '/secrets'],
    ['SecretCreate', 'POST', '/secrets/create'],
    ['SecretInspect', 'GET', '/secrets/{id}'],
    ['SecretDelete', 'DELETE', '/secrets/{id}'],
    ['SecretUpdate', 'POST', '/secrets/{id}/update'],
    ['ConfigList', 'GET', '/configs'],
    ['ConfigCreate', 'POST', '/configs/create'],
    ['ConfigInspect', 'GET', '/configs/{id}'],
    ['ConfigDelete', 'DELETE', '/configs/{id}'],
    ['ConfigUpdate', 'POST', '/configs/{id}/update'],
  ]),
];
export interface Match { operation: Operation; params: Record<string, string> }

interface Compiled { operation: Operation; regex: RegExp; names: string[] }

const compile = (operation: Operation): Compiled => {
  const names: string[] = [];
  const source = operation.path.replace(/[.]/g, '\\.').replace(/\{(\w+)\}/g, (_all, name: string) => {
    names.push(name);
    // Volume names cannot contain a slash, image and plugin names can.
    return name === 'name' && operation.group !== 'volumes' ? '(.+)' : '([^/]+)';
  });
  return {operation, names, regex: new RegExp(`^${source}$`)};
};

// Looked up by method and first path segment: at most a few dozen expressions are tried per request, none for /_ping.
const table = new Map<string, Compiled[]>();
const literal = new Map<string, Match>();
const bucketOf = (method: string, path: string): string => `${method} ${path.split('/', 2)[1] ?? ''}`;
for (const operation of OPERATIONS) {
  if (!operation.path.includes('{')) literal.set(`${operation.method} ${operation.path}`, {operation, params: {}});
  else {
    const bucket = bucketOf(operation.method, operation.path);
    table.set(bucket, [...(table.get(bucket) ?? []), compile(operation)]);
  }
}

/** The operation that a request names (path without version prefix and query), or undefined: the Engine's "page not found". */
export function matchOperation(method: string, path: string): Match | undefined {
  const exact = literal.get(`${method} ${path}`);
  if (exact) return exact;
  for (const {operation, regex, names} of table.get(bucketOf(method, path)) ?? []) {
    const found = regex.exec(path);
    if (!found) continue;
    const params: Record<string, string> = {};
    try {
      names.forEach((name, n) => { params[name] = decodeURIComponent(found[n + 1]!); });
    } catch {
      return undefined;
    }
    return {operation, params};
  }
  return undefined;
}

const MISSING: readonly (readonly [prefix: string, said: (name: string) => string])[] = [
  ['/containers/', (name) => `No such container: ${name}`],
  ['/exec/', (name) => `No such exec instance: ${name}`],
  ['/images/', (name) => `No such image: ${name}`],
  ['/networks/', (name) => `network ${name} not found`],
  ['/volumes/', (name) => `get ${name}: no such volume`],
];

/** Nothing has a name with a NUL in it, and no store takes one to look it up. */
export function refuseImpossibleNames({operation, params}: Match): void {
  const impossible = Object.values(params).find((value) => value.includes('\0'));
  if (impossible === undefined) return;
  const said = MISSING.find(([prefix]) => operation.path.startsWith(prefix))?.[1];
  throw new CetusError('notFound', said?.(impossible) ?? `${impossible} not found`);
}
