/** The operator's API as an OpenAPI 3.1 document: the only place where its parameters and answers are described; requests are checked against it. */

const string = {type: 'string'} as const;
const integer = {type: 'integer'} as const;
const limit = {name: 'limit', in: 'query', description: 'At most so many rows.', schema: {type: 'integer', minimum: 1, maximum: 10_000, default: 100}} as const;
const ref = (name: string): {$ref: string} => ({$ref: `#/components/schemas/${name}`});
const listOf = (name: string): object => ({type: 'array', items: ref(name)});
const path = (name: string, description: string): object => ({name, in: 'path', required: true, description, schema: {type: 'string', minLength: 1, maxLength: 512}});
const query = (name: string, description: string, schema: object = string): object => ({name, in: 'query', description, schema});

const answers = (schema: object, description: string): object => ({
  200: {description, content: {'application/json': {schema}}},
  default: {description: 'It could not be done.', content: {'application/json': {schema: ref('Error')}}},
});
const operation = (operationId: string, summary: string, schema: object, parameters: object[] = []): object => ({
  operationId, summary, parameters, responses: answers(schema, summary),
});

/** One whose particulars are a JSON object; all of it is optional. */
const change = (operationId: string, summary: string, schema: object, properties: object, parameters: object[] = []): object => ({
  ...operation(operationId, summary, schema, parameters),
  requestBody: {required: false, content: {'application/json': {schema: {type: 'object', additionalProperties: false, properties}}}},
});
const labels = {type: 'object', additionalProperties: string} as const;
const reason = {type: 'string', maxLength: 1024, description: 'Shown with the node.'} as const;
const theNode = path('node', 'Name or id.');

interface Operation {
  operationId: string;
  summary: string;
  requestBody?: {content: Record<string, {schema: object}>};
  parameters: {name: string; in: 'path' | 'query'; required?: boolean; schema: object}[];
  responses: Record<string, {content?: Record<string, {schema: object}>}>;
}

export interface OpenApiDocument {
  openapi: string;
  info: {title: string; version: string; description: string};
  /** By path and method. */
  paths: Record<string, Record<string, Operation>>;
  components: {schemas: Record<string, object>};
}

export const OPENAPI = {
  openapi: '3.1.0',
  info: {title: 'Cetus operator API', version: '1', description: 'Nodes, placement, jobs and stored objects of one datacenter.'},
  paths: {
    '/v1/ping': {get: operation('ping', 'Is the store there, and at least one node?', ref('Pong'))},
    '/v1/nodes': {get: operation('listNodes', 'Every node.', listOf('Node'))},
    '/v1/nodes/{node}': {
      get: operation('getNode', 'One node: what it is, what is reserved on it, its containers and certificates, and where it differs from the store.', ref('NodeDetail'), [theNode]),
      delete: operation('removeNode', 'It is a member no more: its certificates are revoked, and what it had is forgotten. Refused for a node that lives or has containers or volumes, unless by force.', ref('RemovedNode'),
        [theNode, query('force', 'Whatever it has; the answer says what was lost.', {type: 'boolean', default: false})]),
    },
    '/v1/nodes/{node}/labels': {post: change('labelNode', 'Labels to add or change, and names of labels to take away.', ref('Node'), {add: labels, remove: {type: 'array', items: string}}, [theNode])},
    '/v1/nodes/{node}/cordon': {post: change('cordonNode', 'It gets no new containers; those it has stay.', ref('Node'), {reason}, [theNode])},
    '/v1/nodes/{node}/uncordon': {post: operation('uncordonNode', 'It gets containers again.', ref('Node'), [theNode])},
    '/v1/nodes/{node}/drain': {post: change('drainNode', 'It gets no new containers, and those that may move do.', ref('Node'), {reason}, [theNode])},
    '/v1/tokens': {
      get: operation('listTokens', 'Join tokens, without their secrets: which are good, and which node came with which.', listOf('Token')),
      post: change('createToken', 'A join token, for one machine. Shown once.', ref('NewToken'), {ttlSeconds: {type: 'integer', minimum: 1, maximum: 2_592_000, description: 'Default: an hour.'}, labels}),
    },
    '/v1/tokens/{token}': {delete: operation('removeToken', 'It is good no more. A node that came with it stays.', ref('Id'), [path('token', 'The part behind the first dot.')])},
    '/v1/nodes/{node}/inventory': {get: operation('getInventory', 'What really exists on the node, asked of its agent.', ref('Inventory'), [path('node', 'Name or id.')])},
    '/v1/containers': {
      get: operation('listContainers', 'Containers of all accounts, newest first.', listOf('Container'), [
        query('account', 'Only of this account.'), query('node', 'Only on this node (name or id).'),
        query('status', 'Only in this status.', {type: 'string', enum: ['created', 'running', 'paused', 'restarting', 'exited', 'removing', 'dead']}), limit]),
    },
    '/v1/containers/{container}': {get: operation('getContainer', 'One container.', ref('Container'), [path('container', 'Id, unique prefix, or name.'), query('account', 'Whose name it is.')])},
    '/v1/containers/{container}/why': {get: operation('whyContainer', 'Where it was placed and why; for one that was refused, the failed job.', ref('Why'), [path('container', 'Id, unique prefix, or name.')])},
    '/v1/volumes': {
      get: operation('listVolumes', 'Volumes of all accounts and the node that has each, by account and name.', listOf('Volume'), [
        query('account', 'Only of this account.'), query('node', 'Only on this node (name or id).'), limit]),
    },
    '/v1/ingresses': {
      get: operation('listIngresses', 'Endpoints, with the published ports that are open there, and those that cannot be because another program has them.', listOf('Ingress')),
    },
    '/v1/jobs': {
      get: operation('listJobs', 'Jobs, newest first.', listOf('Job'), [
        query('execution', 'Only in this state.', {type: 'string', enum: ['queued', 'running', 'unwinding', 'succeeded', 'failed', 'canceled', 'stuck']}),
        query('target', 'Only on this target, e.g. container/ID.'), query('workflow', 'Only of this chain.'), limit]),
    },
    '/v1/jobs/{job}': {get: operation('getJob', 'One job with its step log.', ref('Job'), [path('job', 'Id.')])},
    '/v1/jobs/{job}/cancel': {post: operation('cancelJob', 'Ask for the job to be canceled; seen between steps.', ref('Job'), [path('job', 'Id.')])},
    '/v1/jobs/{job}/retry': {post: operation('retryJob', 'Try the unwinding of a stuck job again.', ref('Job'), [path('job', 'Id.')])},
    '/v1/store': {get: operation('listBuckets', 'Every bucket and how much is in it.', listOf('Bucket'))},
    '/v1/store/{bucket}': {
      get: operation('findObjects', 'Stored objects that match a filter.', listOf('Stored'), [path('bucket', 'Name.'),
        query('filter', 'LDAP style, over indexed fields: (&(status=running)(nodeId=x)). Default: everything.', {type: 'string', maxLength: 4096}),
        query('sort', 'An indexed field; with - in front, descending.', {type: 'string', maxLength: 128}),
        query('offset', 'Skip so many.', {type: 'integer', minimum: 0, default: 0}), limit]),
    },
    '/v1/store/{bucket}/{key}': {get: operation('getObject', 'One stored object.', ref('Stored'), [path('bucket', 'Name.'), path('key', 'Key; slashes as %2F.')])},
  },
  components: {
    schemas: {
      Error: {type: 'object', required: ['code', 'message'], properties: {code: string, message: string}},
      Pong: {type: 'object', required: ['ok'], properties: {ok: {const: true}}},
      Reservation: {type: 'object', required: ['memoryBytes', 'nanoCpus', 'diskBytes', 'pids'], properties: {memoryBytes: integer, nanoCpus: integer, diskBytes: integer, pids: integer}},
      Node: {
        type: 'object', required: ['id', 'name', 'facts', 'availability', 'liveness', 'livenessReason', 'livenessAt', 'labels', 'joinedAt'],
        properties: {
          id: string, name: string, availability: {enum: ['active', 'cordoned', 'draining']}, liveness: {enum: ['alive', 'suspect', 'lost', 'fenced']},
          livenessReason: string, livenessAt: string, joinedAt: string, labels, availabilityReason: string, availabilityAt: string, removing: {type: 'boolean'},
          claim: {
            type: 'object', required: ['at', 'nodeId', 'message'], properties: {at: string, nodeId: string, message: string},
            description: 'The last who showed a good join token in this node\'s name or id without its key, and was refused.',
          },
          facts: {type: 'object', required: ['cpus', 'memoryBytes', 'diskBytes', 'containerdVersion', 'kernelVersion'], properties: {cpus: {type: 'number'}, memoryBytes: integer, diskBytes: integer}},
        },
      },
      Ingress: {
        type: 'object', required: ['endpoint', 'addresses', 'duty', 'open', 'refused'],
        properties: {
          endpoint: string, addresses: {type: 'array', items: string}, duty: {enum: ['serving', 'standby'], description: 'standby: another endpoint of the same machine has the ports there.'}, open: integer,
          refused: {type: 'array', items: {type: 'object', required: ['protocol', 'address', 'port', 'containerId', 'reason'], properties: {protocol: string, address: string, port: integer, containerId: string, reason: string}}},
        },
      },
      NodeDetail: {
        type: 'object', required: ['node', 'reserved', 'containers', 'running', 'certificates', 'staying'],
        properties: {node: ref('Node'), reserved: ref('Reservation'), containers: integer, running: integer,
          certificates: {type: 'array', items: {type: 'object', required: ['serial', 'notAfter'], properties: {serial: string, notAfter: string}}},
          staying: {type: 'array', description: 'What does not go elsewhere while the node is drained, and why.', items: {type: 'object', required: ['id', 'name', 'reason'], properties: {id: string, name: string, reason: string}}}},
      },
      RemovedNode: {
        type: 'object', required: ['id', 'name', 'containers', 'volumes'],
        properties: {id: string, name: string, containers: {type: 'array', items: {type: 'object', required: ['id', 'account', 'name', 'status']}}, volumes: {type: 'array', items: {type: 'object', required: ['account', 'name']}}},
      },
      Token: {
        type: 'object', required: ['id', 'createdAt', 'expiresAtMs', 'labels'],
        properties: {id: string, createdAt: string, expiresAtMs: integer, labels, used: {type: 'object', required: ['nodeId', 'publicKey', 'at'], properties: {nodeId: string, publicKey: string, at: string}}},
      },
      NewToken: {allOf: [ref('Token'), {type: 'object', required: ['token', 'url'], properties: {token: string, url: string}}]},
      Id: {type: 'object', required: ['id'], properties: {id: string}},
      Inventory: {
        type: 'object', required: ['containers', 'snapshots', 'namespaces', 'bridges', 'publishedPorts', 'volumes', 'images', 'execs'],
        properties: {containers: {type: 'array', items: {type: 'object', required: ['id', 'observation']}}, snapshots: {type: 'array', items: string}, namespaces: {type: 'array', items: string},
          bridges: {type: 'array', items: string}, publishedPorts: {type: 'array'}, volumes: {type: 'array', items: string}, images: {type: 'array', items: string}, execs: {type: 'array', items: string}},
      },
      Container: {
        type: 'object', required: ['id', 'account', 'name', 'node', 'nodeId', 'status', 'imageReference', 'createdAt', 'reservation'],
        properties: {
          id: string, account: string, name: string, node: string, nodeId: string, status: string, imageReference: string, createdAt: string, reservation: ref('Reservation'),
          lost: {type: 'object', description: 'Its node is lost or fenced: `was` is what was last known, `status` what it is taken for.', required: ['node', 'liveness', 'reason', 'since', 'was', 'goesElsewhere'],
            properties: {node: string, liveness: {enum: ['lost', 'fenced']}, reason: string, since: string, was: string, goesElsewhere: {type: 'boolean'}, stays: string}},
        },
      },
      Volume: {
        type: 'object', required: ['id', 'account', 'name', 'nodeId', 'anonymous', 'createdAt'],
        properties: {id: string, account: string, name: string, nodeId: {type: 'string', description: 'Empty until its first use places it.'}, node: string, anonymous: {type: 'boolean'}, createdAt: string},
      },
      Step: {
        type: 'object', required: ['step', 'state', 'tries', 'epoch', 'startedAt'],
        properties: {step: string, state: {enum: ['started', 'succeeded', 'failed', 'undoing', 'undone', 'undo-failed']}, tries: integer, epoch: integer, startedAt: string, endedAt: string},
      },
      Job: {
        type: 'object', required: ['id', 'workflow', 'version', 'target', 'account', 'execution', 'steps', 'createdAt'],
        properties: {id: string, workflow: string, version: integer, target: string, account: string, execution: string, steps: {type: 'array', items: ref('Step')}, createdAt: string, startedAt: string, endedAt: string},
      },
      Why: {type: 'object', required: ['container', 'job'], properties: {container: {anyOf: [{type: 'null'}, ref('Container')]}, job: {anyOf: [{type: 'null'}, ref('Job')]}}},
      Bucket: {type: 'object', required: ['name', 'version', 'objects'], properties: {name: string, version: integer, objects: integer}},
      Stored: {type: 'object', required: ['bucket', 'key', 'value', 'etag', 'mtime'], properties: {bucket: string, key: string, value: {}, etag: string, mtime: {type: 'number'}}},
    },
  },
} as unknown as OpenApiDocument;
