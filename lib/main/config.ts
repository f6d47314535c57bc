/**
 * What each process of Cetus is told, as JSON files checked by ajv: unknown names are refused, so that a misspelt setting is never
 * silently ignored. `cetus up` writes these files under DIR/run; a fleet's operator writes them by hand (etc/ has one of each).
 */
import fs from 'node:fs';
import Ajv, {type JSONSchemaType} from 'ajv';
import {CetusError} from '../base/errors';

export interface TlsFiles { cert: string; key: string; /** Clients must present a certificate signed by it. */ ca?: string }

/** What clients may ask of a node's host. */
export interface Policy {
  allowHostNetwork: boolean;
  allowPrivileged: boolean;
  /** 'all', 'off', or a comma-separated list of absolute path prefixes. */
  allowBinds: string;
}

export interface EndpointConfig {
  /** The datacenter's identity, made once and the same at every endpoint. */
  id: string;
  /** The datacenter's name: what `docker info` shows. */
  name: string;
  postgresUrl: string;
  /** Docker clients. Loopback or unix only, unless `tls`. */
  listen: string[];
  tls?: TlsFiles;
  /** The operator's API. Loopback or unix only. */
  adminListen: string[];
  /** Where agents report. */
  fleetListen: string;
  policy: Policy;
  /** Blocks from which networks without a subnet of their own take one. */
  addressPools: {base: string; size: number}[];
  /** Shown by `docker info`; it is the agents that act on theirs. */
  insecureRegistries?: string[];
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
  listen: string;
  /** The control plane's listener for agents. */
  controlPlane: string;
  /** At most five characters that tell this agent's bridges, rules and namespaces from another's on the same machine. */
  prefix: string;
  labels: Record<string, string>;
  insecureRegistries: string[];
  logLevel: string;
}

const tls: JSONSchemaType<TlsFiles> = {
  type: 'object',
  properties: {cert: {type: 'string'}, key: {type: 'string'}, ca: {type: 'string', nullable: true}},
  required: ['cert', 'key'],
  additionalProperties: false,
};
const strings = {type: 'array', items: {type: 'string'}} as const;

const endpointSchema = {
  type: 'object',
  properties: {
    id: {type: 'string', minLength: 1}, name: {type: 'string', minLength: 1}, postgresUrl: {type: 'string', minLength: 1},
    listen: {...strings, minItems: 1}, tls, adminListen: strings, fleetListen: {type: 'string'},
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
    logLevel: {enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal']},
  },
  required: ['id', 'name', 'postgresUrl', 'listen', 'adminListen', 'fleetListen', 'policy', 'addressPools', 'logLevel'],
  additionalProperties: false,
};

const agentSchema = {
  type: 'object',
  properties: {
    nodeId: {type: 'string', minLength: 1}, name: {type: 'string', pattern: '^[a-zA-Z0-9][a-zA-Z0-9_.-]*$'}, dataDir: {type: 'string', pattern: '^/'}, rootDir: {type: 'string', pattern: '^/'},
    containerdSocket: {type: 'string', pattern: '^/'}, containerdNamespace: {type: 'string', pattern: '^[a-z0-9][a-z0-9._-]*$'},
    listen: {type: 'string'}, controlPlane: {type: 'string'}, prefix: {type: 'string', pattern: '^[a-z0-9]{1,5}$'},
    labels: {type: 'object', additionalProperties: {type: 'string'}}, insecureRegistries: strings,
    logLevel: {enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal']},
  },
  required: ['nodeId', 'name', 'dataDir', 'containerdSocket', 'containerdNamespace', 'listen', 'controlPlane', 'prefix', 'labels', 'insecureRegistries', 'logLevel'],
  additionalProperties: false,
};

const ajv = new Ajv({allErrors: true, allowUnionTypes: true});
const validators = {endpoint: ajv.compile<EndpointConfig>(endpointSchema), agent: ajv.compile<AgentConfig>(agentSchema)};

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

export const readEndpointConfig = (file: string): EndpointConfig => read(file, 'endpoint');
export const readAgentConfig = (file: string): AgentConfig => read(file, 'agent');
