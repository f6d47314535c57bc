/**
 * ajv schemas of what the control plane sends to an agent (lib/schema/agent.ts). They check what the agent would trip over (ids that become
 * file names, numbers that become deadlines); unknown fields pass, because a newer control plane may say more.
 */
const id = {type: 'string', pattern: '^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$'} as const;
const digest = {type: 'string', maxLength: 255} as const;
const name = {type: 'string', maxLength: 4096} as const;
const words = {type: 'object', maxProperties: 10_000, additionalProperties: {type: 'string', maxLength: 1_048_576}} as const;
const nullableObject = {type: ['object', 'null']} as const;

const mount = {
  type: 'object',
  required: ['type', 'destination'],
  discriminator: {propertyName: 'type'},
  oneOf: [
    {required: ['volumeId', 'readOnly', 'noCopy'], properties: {type: {const: 'volume'}, volumeId: id, destination: name, readOnly: {type: 'boolean'}, noCopy: {type: 'boolean'}, subpath: name}},
    {required: ['source', 'readOnly', 'createSource'], properties: {type: {const: 'bind'}, source: {type: 'string', pattern: '^/', maxLength: 4096}, destination: name, readOnly: {type: 'boolean'}, createSource: {type: 'boolean'}}},
    {required: ['options'], properties: {type: {const: 'tmpfs'}, destination: name, options: {type: 'array', items: {type: 'string'}}}},
  ],
} as const;

const spec = {
  type: 'object',
  required: ['id', 'account', 'name', 'image', 'config', 'hostConfig', 'logConfig', 'mounts', 'networkMode', 'createdAt'],
  properties: {
    id, account: name, name, config: {type: 'object'}, hostConfig: {type: 'object'}, logConfig: {type: 'object'},
    image: {type: 'object', required: ['id', 'reference', 'manifestDigest'], properties: {id: digest, reference: name, manifestDigest: digest}},
    mounts: {type: 'array', maxItems: 1000, items: mount},
    networkMode: {type: 'string', pattern: '^(none|host|networks|container:[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127})$'}, createdAt: name,
  },
} as const;

const network = {
  type: 'object', required: ['id', 'account', 'name', 'bridgeName', 'subnet', 'gateway', 'internal', 'options'],
  properties: {id, account: name, name, bridgeName: {type: 'string', maxLength: 15}, subnet: name, gateway: name, internal: {type: 'boolean'}, options: words, vni: {type: 'integer', minimum: 1, maximum: 16_777_215}},
} as const;
const attachment = {
  type: 'object', required: ['networkId', 'networkName', 'endpointId', 'address', 'prefixLength', 'gateway', 'mac', 'aliases', 'isDefaultRoute', 'internal'],
  properties: {networkId: id, networkName: name, endpointId: name, address: name, prefixLength: {type: 'integer', minimum: 0, maximum: 128}, gateway: name, mac: name, aliases: {type: 'array', items: name}, isDefaultRoute: {type: 'boolean'}, internal: {type: 'boolean'},
    links: {type: 'array', items: {type: 'object', required: ['name', 'alias'], properties: {name, alias: name}}}},
} as const;
const link = {
  type: 'object', required: ['alias', 'name', 'hostname', 'address', 'ports', 'env'],
  properties: {alias: {type: 'string'}, name, hostname: {type: 'string'}, address: name, ports: {type: 'array', items: {type: 'string'}}, env: {type: 'array', items: {type: 'string'}}},
} as const;
const port = {
  type: 'object', required: ['protocol', 'containerPort', 'hostIp', 'hostPort'],
  properties: {protocol: {enum: ['tcp', 'udp', 'sctp']}, containerPort: {type: 'integer', minimum: 1, maximum: 65_535}, hostIp: name, hostPort: {type: 'integer', minimum: 0, maximum: 65_535}},
} as const;

const etag = {type: 'string', pattern: '^[0-9]{1,20}$'} as const;
const ipv4 = {type: 'string', pattern: '^[0-9]{1,3}(\\.[0-9]{1,3}){3}$'} as const;
const table = {
  type: 'object', required: ['rows', 'gone', 'nodes'],
  properties: {
    rows: {type: 'array', items: {
      type: 'object', required: ['address', 'mac', 'containerId', 'nodeId', 'aliases', 'version'],
      properties: {address: ipv4, mac: {type: 'string', pattern: '^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$'}, containerId: id, nodeId: name, aliases: {type: 'array', maxItems: 1000, items: name}, version: etag},
    }},
    gone: {type: 'array', items: {type: 'object', required: ['address', 'version'], properties: {address: ipv4, version: etag}}},
    nodes: {type: 'array', items: {
      type: 'object', required: ['nodeId', 'address', 'generation'],
      properties: {nodeId: name, address: ipv4, port: {type: 'integer', minimum: 1, maximum: 65_535}, generation: {type: 'integer', minimum: 0}},
    }},
    asOf: etag,
  },
} as const;

const body = (kind: string, properties: Record<string, unknown>, optional: string[] = []): object => ({
  required: Object.keys(properties).filter((key) => !optional.includes(key)), properties: {kind: {const: kind}, ...properties},
});
const containerId = id;
const flag = {type: 'boolean'} as const;

export const TASK_SCHEMA = {
  type: 'object',
  required: ['jobId', 'step', 'epoch', 'requestId', 'body'],
  properties: {
    jobId: id, step: {type: 'string', minLength: 1, maxLength: 255}, epoch: {type: 'integer', minimum: 0}, requestId: {type: 'string', maxLength: 255},
    body: {
      type: 'object', required: ['kind'], discriminator: {propertyName: 'kind'},
      oneOf: [
        body('container.create', {
          spec,
          volumes: {type: 'array', maxItems: 1000, items: {type: 'object', required: ['id', 'name', 'account', 'options'], properties: {id, name, account: name, options: words}}},
          reschedule: flag,
        }, ['reschedule']),
        body('container.start', {containerId, networks: {type: 'array', items: network}, attachments: {type: 'array', items: attachment}, ports: {type: 'array', items: port}, links: {type: 'array', items: link}, reschedule: flag}, ['links', 'reschedule']),
        body('container.stop', {containerId, timeoutSeconds: {type: ['integer', 'null'], minimum: -1}, signal: {type: ['string', 'null'], maxLength: 32}}),
        body('container.kill', {containerId, signal: {type: 'string', minLength: 1, maxLength: 32}}),
        body('container.pause', {containerId}),
        body('container.unpause', {containerId}),
        body('container.update', {containerId, resources: {type: 'object'}, restartPolicy: nullableObject, reschedule: flag}, ['reschedule']),
        body('container.rename', {containerId, name}),
        body('container.remove', {containerId, force: {type: 'boolean'}}),
        body('network.ensure', {network}),
        body('network.remove', {networkId: id}),
        body('network.table', {network, table}),
        body('network.connect', {containerId, network, attachment}),
        body('network.disconnect', {containerId, networkId: id}),
        body('volume.ensure', {volumeId: id, name, account: name, options: words}),
        body('volume.remove', {volumeId: id}),
        body('image.remove', {imageId: digest, account: name}),
        body('image.commit', {
          containerId, account: name, created: name, pause: {type: 'boolean'}, author: {type: 'string', maxLength: 65_536}, comment: {type: 'string', maxLength: 65_536},
          config: {type: 'object'}, containerConfig: {type: 'object'},
        }),
      ],
    },
  },
} as const;

const strings = {type: ['array', 'null'], maxItems: 100_000, items: {type: 'string', maxLength: 1_048_576}} as const;

export const PUT_EXEC_SCHEMA = {
  type: 'object',
  required: ['containerId', 'config'],
  properties: {
    containerId,
    config: {
      type: 'object',
      properties: {
        AttachStdin: {type: 'boolean'}, AttachStdout: {type: 'boolean'}, AttachStderr: {type: 'boolean'}, DetachKeys: {type: 'string', maxLength: 255}, Tty: {type: 'boolean'},
        Env: strings, Cmd: strings, Privileged: {type: 'boolean'}, User: {type: 'string', maxLength: 255}, WorkingDir: {type: 'string', maxLength: 4096},
        ConsoleSize: {type: ['array', 'null'], minItems: 2, maxItems: 2, items: {type: 'integer', minimum: 0}},
      },
    },
  },
} as const;

const manifest = {type: 'object', required: ['mediaType', 'digest', 'size'], properties: {mediaType: {type: 'string', maxLength: 255}, digest, size: {type: 'integer', minimum: 0}}} as const;
const peers = {type: 'array', maxItems: 64, items: {type: 'object', required: ['nodeId', 'url'], properties: {nodeId: id, url: {type: 'string', pattern: '^(unix|https)://', maxLength: 4096}}}} as const;

export const PULL_REQUEST_SCHEMA = {
  type: 'object', required: ['account', 'reference'],
  properties: {account: name, reference: {type: 'string', minLength: 1, maxLength: 1024}, platform: {type: 'string', maxLength: 255}, peers},
} as const;

export const ENSURE_REQUEST_SCHEMA = {
  type: 'object', required: ['account', 'imageId', 'manifest', 'peers'],
  properties: {account: name, imageId: digest, manifest, peers, reference: {type: 'string', minLength: 1, maxLength: 1024}},
} as const;

export const PUSH_REQUEST_SCHEMA = {
  type: 'object', required: ['imageId', 'manifest', 'reference', 'sources'],
  properties: {
    imageId: digest, reference: {type: 'string', minLength: 1, maxLength: 1024},
    manifest,
    sources: {type: 'object', maxProperties: 1000, additionalProperties: {type: 'array', maxItems: 16, items: {type: 'string', maxLength: 255}}},
  },
} as const;

export const IMPORT_REQUEST_SCHEMA = {
  type: 'object', required: ['account', 'created', 'message', 'config'],
  properties: {account: name, created: name, message: {type: 'string', maxLength: 65_536}, config: {type: 'object'}, platform: {type: 'string', maxLength: 255}, url: {type: 'string', maxLength: 65_536}},
} as const;

export const REGISTRY_QUESTION_SCHEMA = {
  type: 'object', required: ['kind'], discriminator: {propertyName: 'kind'},
  oneOf: [
    {required: ['server'], properties: {kind: {const: 'login'}, server: {type: 'string', maxLength: 1024}}},
    {required: ['reference'], properties: {kind: {const: 'inspect'}, reference: {type: 'string', minLength: 1, maxLength: 1024}}},
    {required: ['reference'], properties: {kind: {const: 'tags'}, reference: {type: 'string', minLength: 1, maxLength: 1024}}},
    {required: ['term', 'limit'], properties: {kind: {const: 'search'}, term: {type: 'string', maxLength: 1024}, limit: {type: 'integer', minimum: 1, maximum: 100}}},
  ],
} as const;

export const SAVE_REQUEST_SCHEMA = {
  type: 'object', required: ['images'],
  properties: {images: {type: 'array', maxItems: 10_000, items: {type: 'object', required: ['imageId', 'manifest', 'references'], properties: {imageId: digest, manifest: {type: 'object'}, references: {type: 'array', items: name}}}}},
} as const;

const builtNames = {type: 'object', required: ['imageId', 'references', 'repoDigests'], properties: {imageId: digest, references: {type: 'array', items: name}, repoDigests: {type: 'array', items: name}}} as const;

export const BUILD_PREPARE_SCHEMA = {
  type: 'object', required: ['account', 'network', 'hostNetwork', 'images'],
  properties: {
    account: name, network, hostNetwork: {type: 'boolean'},
    images: {type: 'array', maxItems: 100_000, items: {type: 'object', required: ['imageId', 'manifest', 'references'], properties: {imageId: digest, manifest: {type: 'object'}, references: {type: 'array', items: name}}}},
  },
} as const;
export const BUILT_SCHEMA = {type: 'object', required: ['hold', 'imageIds'], properties: {hold: name, imageIds: {type: 'array', maxItems: 1_000, items: digest}}} as const;
export const TAKE_SCHEMA = {type: 'object', required: ['hold', 'images'], properties: {hold: name, images: {type: 'array', maxItems: 10_000, items: builtNames}}} as const;
