/** operationId -> verb. One line each: whatever needs more belongs into lib/datacenter. */
import type {Datacenter} from '../datacenter/verbs';
import type {ContainerStatus} from '../schema/container';

/** Parameters as the OpenAPI document describes them, checked and coerced. */
export interface Params {
  token: string; force: boolean;
  /** Of a change: the request's JSON object, {} where there is none. */
  body: {reason?: string; add?: Record<string, string>; remove?: string[]; ttlSeconds?: number; labels?: Record<string, string>};
  node: string; container: string; job: string; bucket: string; key: string;
  account?: string; status?: ContainerStatus; execution?: string; target?: string; workflow?: string;
  filter?: string; sort?: string; limit: number; offset: number;
}

export type Verb = (params: Params) => Promise<unknown>;

const EVERYTHING = '(_key=*)';

export function verbs({operator, system}: Pick<Datacenter, 'operator' | 'system'>): Record<string, Verb> {
  return {
    ping: async () => {
      await system.ping();
      return {ok: true};
    },
    listNodes: () => operator.nodes(),
    getNode: (p) => operator.node(p.node),
    removeNode: (p) => operator.members.remove(p.node, p.force),
    labelNode: (p) => operator.members.label(p.node, p.body),
    cordonNode: (p) => operator.members.cordon(p.node, p.body.reason ?? ''),
    uncordonNode: (p) => operator.members.uncordon(p.node),
    drainNode: (p) => operator.members.drain(p.node, p.body.reason ?? ''),
    listTokens: () => operator.members.tokens(),
    createToken: ({body}) => operator.members.createToken({ttlSeconds: body.ttlSeconds, labels: body.labels}),
    removeToken: (p) => operator.members.removeToken(p.token),
    getInventory: (p) => operator.inventory(p.node),
    listContainers: ({account, node, status, limit}) => operator.containers({account, node, status, limit}),
    getContainer: (p) => operator.container(p.container, p.account),
    listVolumes: ({account, node, limit}) => operator.volumes({account, node, limit}),
    listIngresses: () => operator.ingresses(),
    whyContainer: (p) => operator.why(p.container),
    listJobs: ({execution, target, workflow, limit}) => operator.jobs({execution, target, workflow, limit}),
    getJob: (p) => operator.job(p.job),
    cancelJob: (p) => operator.cancelJob(p.job),
    retryJob: (p) => operator.retryJob(p.job),
    listBuckets: () => operator.buckets(),
    findObjects: (p) => operator.objects(p.bucket, p.filter || EVERYTHING, {limit: p.limit, offset: p.offset, sort: p.sort}),
    getObject: (p) => operator.object(p.bucket, p.key),
  };
}
