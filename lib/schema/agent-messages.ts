/** ajv schemas of what agents send to the control plane (lib/schema/agent.ts). Unknown fields pass: a newer agent may say more. */
const text = {type: 'string', maxLength: 4096} as const;
const name = {type: 'string', minLength: 1, maxLength: 255} as const;
const count = {type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER} as const;
const words = {type: 'object', maxProperties: 1000, additionalProperties: {type: 'string', maxLength: 65_536}} as const;

export const NODE_FACTS_SCHEMA = {
  type: 'object',
  required: ['nodeId', 'name', 'platform', 'architecture', 'osType', 'cpus', 'memoryBytes', 'diskBytes', 'pids', 'agentUrl', 'agentVersion', 'labels', 'bootGeneration'],
  properties: {
    nodeId: name, name, platform: name, architecture: name, kernelVersion: text, operatingSystem: text, osType: {const: 'linux'},
    cpus: {type: 'number', exclusiveMinimum: 0}, cpusetCpus: text, cpusetMems: text, memoryBytes: count, diskBytes: count, pids: count, cgroupVersion: {enum: [1, 2]}, cgroupDriver: text,
    containerdVersion: text, runcVersion: text, initBinary: text, initVersion: text, initCommit: text, snapshotter: text, builds: {type: 'boolean'}, rootDir: text, agentUrl: name, agentVersion: name, labels: words, bootGeneration: count,
  },
} as const;

export const HEARTBEAT_SCHEMA = {
  type: 'object',
  required: ['nodeId', 'bootGeneration', 'reportSeq', 'runningContainers'],
  properties: {nodeId: name, bootGeneration: count, reportSeq: count, runningContainers: count, revokedVersion: {type: 'string', maxLength: 64}},
} as const;

export const ASSIGNMENT_SCHEMA = {
  type: 'object',
  required: ['nodeId', 'bootGeneration', 'containers'],
  properties: {nodeId: name, bootGeneration: count, containers: {type: 'array', maxItems: 100_000, items: {type: 'string', pattern: '^[a-zA-Z0-9_.-]{1,128}$'}}},
} as const;

const request = {type: 'string', minLength: 1, maxLength: 8192} as const;
export const ENROLL_SCHEMA = {type: 'object', required: ['token', 'nodeId', 'name', 'request'], properties: {token: {type: 'string', maxLength: 256}, nodeId: name, name, request}} as const;
export const RENEW_SCHEMA = {type: 'object', required: ['nodeId', 'request'], properties: {nodeId: name, request}} as const;

const observation = {
  type: 'object',
  required: ['containerId', 'generation', 'status', 'pid', 'exitCode', 'error', 'oomKilled', 'startedAt', 'finishedAt', 'restartCount'],
  properties: {
    containerId: {type: 'string', pattern: '^[a-zA-Z0-9_.-]{1,128}$'}, generation: count, status: {enum: ['created', 'running', 'paused', 'restarting', 'exited']},
    pid: count, exitCode: {type: 'integer'}, error: {type: 'string', maxLength: 65_536}, oomKilled: {type: 'boolean'}, startedAt: name, finishedAt: name,
    restartCount: count, stoppedByUser: {type: 'boolean'}, wantsStart: {type: 'boolean'}, health: {type: 'object'},
  },
} as const;

const at = {type: 'string', pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d{1,9})?Z$'} as const;

export const REPORT_BATCH_SCHEMA = {
  type: 'object',
  required: ['nodeId', 'bootGeneration', 'reports'],
  properties: {
    nodeId: name, bootGeneration: count,
    reports: {
      type: 'array', maxItems: 1000,
      items: {
        type: 'object',
        required: ['seq', 'at', 'kind'],
        discriminator: {propertyName: 'kind'},
        oneOf: [
          {
            required: ['action', 'attributes', 'observation'],
            properties: {
              kind: {const: 'container'}, seq: count, at, attributes: words, observation,
              action: {enum: ['comeback', 'start', 'die', 'restart', 'stop', 'kill', 'pause', 'unpause', 'oom', 'health_status', 'update']},
            },
          },
          {
            required: ['execId', 'containerId', 'exitCode'],
            properties: {kind: {const: 'exec'}, seq: count, at, execId: observation.properties.containerId, containerId: observation.properties.containerId, exitCode: {type: 'integer'}},
          },
        ],
      },
    },
  },
} as const;
