/**
 * Every query parameter and header of every operation, as data: honoured, refused, or ignored because it cannot mean anything here. Bodies
 * have the same table, field by field, in lib/schema/options. The promise "no silent option" hangs on the two: what is not honoured is
 * refused by name unless its value is the one that changes nothing. What the Engine itself does not know is ignored, as the Engine does.
 * The verbs check values again (they know nodes, networks and volumes); this is the first gate. README.md shows the tables
 * (tools/render-options.mjs), and test/docker/options.test.ts holds both against the API's description.
 */
import type {Disposition} from '../schema/options/field';

export type Options = Readonly<Record<string, Disposition>>;

const honoured = (...names: string[]): Options => Object.fromEntries(names.map((name) => [name, {is: 'honoured'} as const]));
const refused = (why: string, ...names: string[]): Options => Object.fromEntries(names.map((name) => [name, {is: 'refused', why} as const]));
const ignored = (why: string, ...names: string[]): Options => Object.fromEntries(names.map((name) => [name, {is: 'ignored', why} as const]));

/** Query parameters by operation id. Those of the API that are not listed here do not exist for that operation. */
export const QUERIES: Readonly<Record<string, Options>> = {
  SystemEvents: honoured('since', 'until', 'filters'),
  SystemDataUsage: {...honoured('type'), ...ignored('more detail in the answer of newer APIs', 'verbose')},
  ContainerList: {...honoured('all', 'limit', 'size', 'filters'), ...refused('removed from the API with 1.24: use filters', 'since', 'before')},
  ContainerCreate: honoured('name', 'platform'),
  ContainerInspect: honoured('size'),
  ContainerTop: honoured('ps_args'),
  ContainerLogs: honoured('follow', 'stdout', 'stderr', 'since', 'until', 'timestamps', 'tail', 'details'),
  ContainerStats: honoured('stream', 'one-shot'),
  ContainerResize: honoured('h', 'w'),
  ContainerStart: {...ignored('starting attaches nothing', 'detachKeys'), ...refused('checkpoints are not supported', 'checkpoint', 'checkpoint-dir')},
  ContainerStop: honoured('signal', 't'),
  ContainerRestart: honoured('signal', 't'),
  ContainerKill: honoured('signal'),
  ContainerRename: honoured('name'),
  ContainerAttach: honoured('detachKeys', 'logs', 'stream', 'stdin', 'stdout', 'stderr'),
  ContainerAttachWebsocket: honoured('detachKeys', 'logs', 'stream', 'stdin', 'stdout', 'stderr'),
  ContainerWait: honoured('condition'),
  ContainerDelete: honoured('v', 'force', 'link'),
  ContainerArchive: honoured('path'),
  ContainerArchiveInfo: honoured('path'),
  PutContainerArchive: honoured('path', 'noOverwriteDirNonDir', 'copyUIDGID'),
  ContainerPrune: honoured('filters'),
  ImageBuild: {
    ...honoured('dockerfile', 't', 'extrahosts', 'remote', 'q', 'nocache', 'cachefrom', 'pull', 'rm', 'forcerm', 'memory', 'memswap', 'cpushares', 'cpusetcpus', 'cpusetmems', 'cpuperiod',
      'cpuquota', 'buildargs', 'shmsize', 'labels', 'networkmode', 'platform', 'target', 'outputs', 'version', 'session', 'buildid', 'ulimits', 'securityopt', 'squash', 'isolation'),
    ...refused('the node decides where builds are accounted', 'cgroupparent'),
  },
  BuildPrune: {
    ...honoured('filters', 'all', 'keep-storage', 'reserved-space'),
    ...refused('the engine on the nodes knows how much to keep (reserved-space), not how much there may be', 'max-used-space', 'min-free-space'),
  },
  BuildCancel: honoured('id'),
  ImageList: {...honoured('all', 'filters', 'filter', 'shared-size', 'manifests'), ...ignored('digests are always in the answer', 'digests')},
  ImageCreate: honoured('fromImage', 'tag', 'platform', 'fromSrc', 'repo', 'message', 'changes'),
  ImageInspect: honoured('manifests', 'platform'),
  ImageHistory: honoured('platform'),
  ImageTag: honoured('repo', 'tag'),
  ImageDelete: honoured('force', 'noprune', 'platforms'),
  ImagePrune: honoured('filters'),
  ImageGet: honoured('platform'),
  ImageGetAll: honoured('names', 'platform'),
  ImageLoad: honoured('quiet', 'platform'),
  ImagePush: honoured('tag', 'platform'),
  ImageSearch: honoured('term', 'limit', 'filters'),
  ImageCommit: honoured('container', 'repo', 'tag', 'comment', 'author', 'pause', 'changes'),
  ExecResize: honoured('h', 'w'),
  VolumeList: honoured('filters'),
  VolumeDelete: honoured('force'),
  VolumePrune: honoured('filters'),
  NetworkList: honoured('filters'),
  NetworkInspect: {...honoured('scope'), ...ignored('adds details of swarm services only', 'verbose')},
  NetworkPrune: honoured('filters'),
  ...ofSwarmAndPlugins(),
};

/** Of these only what the Engine reads before it looks whether there is a swarm, or the plugin, can change the answer. */
function ofSwarmAndPlugins(): Record<string, Options> {
  const noSwarm = 'swarm mode is off, which the answer says';
  const noPlugins = 'there are no plugins, which the answer says';
  const logs = {...honoured('stdout', 'stderr'), ...ignored(noSwarm, 'details', 'follow', 'since', 'timestamps', 'tail')};
  return {
    VolumeUpdate: ignored('cluster volumes need swarm mode, which the answer says', 'version'),
    NodeList: honoured('filters'),
    NodeUpdate: honoured('version'),
    NodeDelete: ignored('nodes are the operator\'s, which the answer says', 'force'),
    SwarmLeave: ignored(noSwarm, 'force'),
    SwarmUpdate: {...honoured('version'), ...ignored(noSwarm, 'rotateWorkerToken', 'rotateManagerToken', 'rotateManagerUnlockKey')},
    ServiceList: {...honoured('filters'), ...ignored(noSwarm, 'status')},
    ServiceInspect: ignored(noSwarm, 'insertDefaults'),
    ServiceUpdate: {...honoured('version'), ...ignored(noSwarm, 'registryAuthFrom', 'rollback')},
    ServiceLogs: logs,
    TaskList: honoured('filters'),
    TaskLogs: logs,
    SecretList: honoured('filters'),
    SecretUpdate: honoured('version'),
    ConfigList: honoured('filters'),
    ConfigUpdate: honoured('version'),
    PluginList: honoured('filters'),
    GetPluginPrivileges: honoured('remote'),
    PluginPull: honoured('remote', 'name'),
    PluginDelete: ignored(noPlugins, 'force'),
    PluginEnable: honoured('timeout'),
    PluginDisable: ignored(noPlugins, 'force'),
    PluginUpgrade: honoured('remote'),
    PluginCreate: honoured('name'),
  };
}

/** Headers that the API describes, by operation id; beside those of HTTP itself. */
export const HEADERS: Readonly<Record<string, Options>> = {
  ImageCreate: honoured('X-Registry-Auth'),
  ImagePush: honoured('X-Registry-Auth'),
  ImageBuild: honoured('X-Registry-Config'),
  ServiceCreate: ignored('swarm mode is off, which the answer says', 'X-Registry-Auth'),
  ServiceUpdate: ignored('swarm mode is off, which the answer says', 'X-Registry-Auth'),
  PluginPull: ignored('plugins cannot be installed, which the answer says', 'X-Registry-Auth'),
  PluginUpgrade: ignored('there are no plugins, which the answer says', 'X-Registry-Auth'),
};
