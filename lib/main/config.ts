/**
 * What each process of Cetus is told, as JSON files checked by ajv: unknown names are refused, so that a misspelt setting is never
 * silently ignored. `cetus up` writes these files under DIR/run; a fleet's operator writes them by hand (etc/ has one of each).
 */
import fs from 'node:fs';
import Ajv, {type JSONSchemaType} from 'ajv';
import {CetusError} from '../base/errors';
import {lateCheck} from '../base/late-check';

export interface TlsFiles { cert: string; key: string; /** Clients must present a certificate signed by it. */ ca?: string }

/** Mutual TLS between agents and endpoints. Both sides show `cert`, and take nobody whom `ca` has not signed. */
export interface MutualTlsFiles { ca: string; cert: string; key: string }

/** What clients may ask of a node's host. */
export interface Policy {
  allowHostNetwork: boolean;
  allowPrivileged: boolean;
  /** 'all', 'off', or a comma-separated list of absolute path prefixes. */
  allowBinds: string;
}

export interface AuthorityConfig {
  /** Mode 0600, the same at every endpoint: what opens the authority's private key, which the store keeps. Made by the first endpoint of a datacenter. */
  keyFile: string;
  /** How long certificates are good. Default 90. */
  certificateDays?: number;
  /** Where nodes reach this listener, shown with a token. Default: fleetListen, where that is an address of its own. */
  url?: string;
}

export interface EndpointConfig {
  /** The datacenter's identity, made once and the same at every endpoint. */
  id: string;
  /** The datacenter's name: what `docker info` shows. */
  name: string;
  /** The store: one Postgres at an address, or a cluster (manatee) that says in ZooKeeper who is primary. Exactly one of the two. */
  postgresUrl?: string;
  store?: ClusterStore;
  /** Docker clients. Loopback or unix only, unless `tls`. */
  listen: string[];
  tls?: TlsFiles;
  /** The operator's API. Loopback or unix only. */
  adminListen: string[];
  /** Where agents report: unix:///PATH, or HOST:PORT with `fleetTls`. */
  fleetListen: string;
  /** Towards agents, at `fleetListen` and on the way to theirs. */
  fleetTls?: MutualTlsFiles;
  /** In place of fleetTls: Cetus' own authority gives endpoints and nodes their certificates. */
  authority?: AuthorityConfig;
  /** For so long after a heartbeat a node is alive; what else is waited for (lost, fenced) is counted in it. Default 15000. */
  leaseMs?: number;
  /** Without meaning since leases are in the store; files of before may have it. */
  amongOthers?: boolean;
  policy: Policy;
  /** Blocks from which networks without a subnet of their own take one. */
  addressPools: {base: string; size: number}[];
  /** Shown by `docker info`; it is the agents that act on theirs. */
  insecureRegistries?: string[];
  logLevel: string;
}

/** A cluster's ZooKeeper: `servers` as HOST:PORT,HOST:PORT, `path` the cluster's node. */
export interface ZooKeeperPlace { servers: string; path: string }

export interface ClusterStore {
  zookeeper: ZooKeeperPlace;
  database: string;
  user: string;
  /** Holds the password and nothing else. */
  passwordFile: string;
}

/** A peer: a Postgres and its sitter. */
export interface SitterConfig {
  /** Chosen once; never given to another data directory. */
  id: string;
  /** Where the other peers and the clients find its Postgres. */
  host: string;
  port: number;
  /** What Postgres listens on. Default: `host`. */
  listenHost?: string;
  /** HOST:PORT of the sitter's own listener (read only, for `cetus db`), as others reach it; where it is every address, they reach it at `host`. */
  statusListen: string;
  dataDir: string;
  /** For Postgres' socket. Default: `socket` in dataDir. */
  socketDir?: string;
  /** Of Postgres 14 or later. Default: the newest in /usr/lib/postgresql. */
  binDir?: string;
  zookeeper: ZooKeeperPlace & {sessionTimeoutMs: number};
  /** Files with one password each, the same at all peers, readable by nobody else. */
  passwordFiles: {client: string; replication: string};
  /** Where there is no cluster yet: found one alone, whose writes nobody else has. Means nothing where there is one. */
  oneNodeWriteMode: boolean;
  /** How long a primary whose Postgres does not come up is waited for. Default 300. */
  restartGraceMs?: number;
  /** Postgres settings that outrank Cetus' own; the same at all peers. */
  settings: Record<string, string>;
  logLevel: string;
}

export interface AgentConfig {
  nodeId: string;
  /** The node's name: what `cetus node ls` shows. */
  name: string;
  dataDir: string;
  /** Shown as the node's root directory: where all of what is Cetus' lies. Default: dataDir. */
  rootDir?: string;
  /** containerd's socket; its namespace for everything of ours. */
  containerdSocket: string;
  containerdNamespace: string;
  /** For the control plane: unix:///PATH, or HOST:PORT with `tls`, as it is reached there. */
  listen: string;
  /** The control plane's listeners for agents, unix:///PATH or https://HOST:PORT: one is spoken to, and the next where it does not answer. */
  controlPlane: string | string[];
  tls?: MutualTlsFiles;
  /**
   * The node's own address for the traffic of containers between nodes (VXLAN), `port` 4789 unless another is given. Absent: its networks end at the node.
   */
  underlay?: {address: string; port?: number};
  /** At most five characters that tell this agent's bridges, rules and namespaces from another's on the same machine. */
  prefix: string;
  labels: Record<string, string>;
  insecureRegistries: string[];
  /** What the machine's boot is told by. Default: the kernel's boot_id; a test host boots without the kernel. */
  bootId?: string;
  logLevel: string;
}

const tls: JSONSchemaType<TlsFiles> = {
  type: 'object',
  properties: {cert: {type: 'string'}, key: {type: 'string'}, ca: {type: 'string', nullable: true}},
  required: ['cert', 'key'],
  additionalProperties: false,
};
const mutualTls: JSONSchemaType<MutualTlsFiles> = {
  type: 'object',
  properties: {ca: {type: 'string'}, cert: {type: 'string'}, key: {type: 'string'}},
  required: ['ca', 'cert', 'key'],
  additionalProperties: false,
};
const strings = {type: 'array', items: {type: 'string'}} as const;

const zookeeper = {servers: {type: 'string', pattern: '^[^\\s,/]+:[0-9]+(,[^\\s,/]+:[0-9]+)*$'}, path: {type: 'string', pattern: '^(/[A-Za-z0-9._-]+)+$'}} as const;
const logLevel = {enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal']} as const;

const storeSchema = {
  type: 'object',
  properties: {
    zookeeper: {type: 'object', properties: zookeeper, required: ['servers', 'path'], additionalProperties: false},
    database: {type: 'string', minLength: 1}, user: {type: 'string', minLength: 1}, passwordFile: {type: 'string', minLength: 1},
  },
  required: ['zookeeper', 'database', 'user', 'passwordFile'],
  additionalProperties: false,
};

const sitterSchema = {
  type: 'object',
  properties: {
    id: {type: 'string', pattern: '^(?!cetus_)[a-z0-9][a-z0-9_.-]{0,49}$'}, host: {type: 'string', minLength: 1}, port: {type: 'integer', minimum: 1, maximum: 65_535},
    listenHost: {type: 'string', minLength: 1}, statusListen: {type: 'string', pattern: ':[0-9]+$'}, dataDir: {type: 'string', pattern: '^/'}, socketDir: {type: 'string', pattern: '^/'},
    binDir: {type: 'string', pattern: '^/'},
    zookeeper: {type: 'object', properties: {...zookeeper, sessionTimeoutMs: {type: 'integer', minimum: 500, maximum: 60_000}}, required: ['servers', 'path', 'sessionTimeoutMs'], additionalProperties: false},
    passwordFiles: {type: 'object', properties: {client: {type: 'string'}, replication: {type: 'string'}}, required: ['client', 'replication'], additionalProperties: false},
    oneNodeWriteMode: {type: 'boolean'}, restartGraceMs: {type: 'integer', minimum: 0}, settings: {type: 'object', additionalProperties: {type: 'string'}}, logLevel,
  },
  required: ['id', 'host', 'port', 'statusListen', 'dataDir', 'zookeeper', 'passwordFiles', 'oneNodeWriteMode', 'settings', 'logLevel'],
  additionalProperties: false,
};

const endpointSchema = {
  type: 'object',
  properties: {
    id: {type: 'string', minLength: 1}, name: {type: 'string', minLength: 1}, postgresUrl: {type: 'string', minLength: 1}, store: storeSchema,
    listen: {...strings, minItems: 1}, tls, adminListen: strings, leaseMs: {type: 'integer', minimum: 500}, fleetListen: {type: 'string'}, fleetTls: mutualTls,
    authority: {
      type: 'object', required: ['keyFile'], additionalProperties: false,
      properties: {keyFile: {type: 'string', pattern: '^/'}, certificateDays: {type: 'number', exclusiveMinimum: 0, maximum: 3650}, url: {type: 'string', pattern: '^https://'}},
    },
    insecureRegistries: strings,
    policy: {
      type: 'object',
      properties: {allowHostNetwork: {type: 'boolean'}, allowPrivileged: {type: 'boolean'}, allowBinds: {type: 'string'}},
      required: ['allowHostNetwork', 'allowPrivileged', 'allowBinds'],
      additionalProperties: false,
    },
    addressPools: {
      type: 'array', minItems: 1,
      items: {type: 'object', properties: {base: {type: 'string'}, size: {type: 'integer', minimum: 8, maximum: 30}}, required: ['base', 'size'], additionalProperties: false},
    },
    logLevel,
  },
  required: ['id', 'name', 'listen', 'adminListen', 'fleetListen', 'policy', 'addressPools', 'logLevel'],
  additionalProperties: false,
};

const agentSchema = {
  type: 'object',
  properties: {
    nodeId: {type: 'string', minLength: 1}, name: {type: 'string', pattern: '^[a-zA-Z0-9][a-zA-Z0-9_.-]*$'}, dataDir: {type: 'string', pattern: '^/'}, rootDir: {type: 'string', pattern: '^/'},
    containerdSocket: {type: 'string', pattern: '^/'}, containerdNamespace: {type: 'string', pattern: '^[a-z0-9][a-z0-9._-]*$'},
    listen: {type: 'string'}, controlPlane: {anyOf: [{type: 'string'}, {...strings, minItems: 1}]}, tls: mutualTls, prefix: {type: 'string', pattern: '^[a-z0-9]{1,5}$'},
    underlay: {
      type: 'object', properties: {address: {type: 'string', pattern: '^[0-9]{1,3}(\\.[0-9]{1,3}){3}$'}, port: {type: 'integer', minimum: 1, maximum: 65_535}},
      required: ['address'], additionalProperties: false,
    },
    labels: {type: 'object', additionalProperties: {type: 'string'}}, insecureRegistries: strings,
    bootId: {type: 'string', minLength: 1}, logLevel,
  },
  required: ['nodeId', 'name', 'dataDir', 'containerdSocket', 'containerdNamespace', 'listen', 'controlPlane', 'prefix', 'labels', 'insecureRegistries', 'logLevel'],
  additionalProperties: false,
};

const ajv = new Ajv({allErrors: true, allowUnionTypes: true});
const validators = {endpoint: lateCheck(ajv, endpointSchema), agent: lateCheck(ajv, agentSchema), sitter: lateCheck(ajv, sitterSchema)};

function read<T>(file: string, kind: keyof typeof validators): T {
  let parsed: unknown;
  try {
    parsed = JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (err) {
    throw new CetusError('invalid', `configuration ${file}: ${(err as Error).message}`, {cause: err});
  }
  const validate = validators[kind];
  if (!validate(parsed)) {
    const faults = (validate.errors ?? []).map((e) => `${e.instancePath || '/'} ${e.message}${e.params && 'additionalProperty' in e.params ? ` (${String(e.params.additionalProperty)})` : ''}`);
    throw new CetusError('invalid', `configuration ${file}: ${faults.join('; ')}`);
  }
  return parsed as T;
}

export function readEndpointConfig(file: string): EndpointConfig {
  const config = read<EndpointConfig>(file, 'endpoint');
  if ((config.postgresUrl === undefined) === (config.store === undefined)) throw new CetusError('invalid', `configuration ${file}: one of postgresUrl and store is wanted`);
  if (config.authority && config.fleetTls) throw new CetusError('invalid', `configuration ${file}: certificates are either from files (fleetTls) or from Cetus' own authority, not both`);
  if (config.authority && config.fleetListen.startsWith('unix:')) throw new CetusError('invalid', `configuration ${file}: authority wants a fleetListen that other machines reach, HOST:PORT`);
  return config;
}
export const readSitterConfig = (file: string): SitterConfig => read(file, 'sitter');
export const readAgentConfig = (file: string): AgentConfig => read(file, 'agent');
