/** What operators may ask. Not bound to an account; lib/admin is the only caller. */
import {CetusError} from '../base/errors';
import {ALL, and, eq, startsWith} from '../moray/filter';
import {BUCKETS, type BucketName} from '../schema/buckets';
import {staying} from '../fleet/movable';
import type {Container} from '../schema/container';
import type {Job} from '../schema/job';
import type {NodeReservations} from '../schema/node';
import type {IngressRow, Volume} from '../schema/objects';
import type {Context} from './context';
import {memberVerbs} from './members';
import {allSeen, seen, type SeenContainer} from './containers/lost';
import {noSuchContainer} from './containers/resolve';
import type {OperatorVerbs} from './verbs';

const DEFAULT_LIMIT = 1000;
const MAX_LIMIT = 10_000;
const MAX_STAYING = 1000;
const limited = (limit: number | undefined): number => Math.min(Math.max(limit ?? DEFAULT_LIMIT, 1), MAX_LIMIT);

function known(bucket: string): BucketName {
  if (!Object.hasOwn(BUCKETS, bucket)) throw new CetusError('notFound', `no bucket ${bucket}; there are ${Object.keys(BUCKETS).join(', ')}`);
  return bucket as BucketName;
}

export function operatorVerbs(context: Context): OperatorVerbs {
  const {moray, fleet, workflow} = context;
  const members = memberVerbs(context);
  const newest = [{field: 'createdAtNs', order: 'desc' as const}];

  const container = async (nameOrId: string, account?: string): Promise<SeenContainer> => {
    const within = account === undefined ? [] : [eq('account', account)];
    const name = nameOrId.replace(/^\//, '');
    // "account/name" says it exactly; a bare name must be unique among accounts.
    const filters = [...(name.includes('/') ? [eq('accountName', name)] : [eq('name', name)]), ...(/^[0-9a-f]+$/.test(name) ? [startsWith('_key', name)] : [])];
    for (const filter of filters) {
      const found = await moray.list<Container>(BUCKETS.containers.name, and(filter, ...within), {limit: 3});
      if (found.length > 1) throw new CetusError('invalid', `${nameOrId} names several containers: ${found.map((f) => f.value.accountName).join(', ')}`);
      if (found[0]) return seen(context, found[0].value);
    }
    throw noSuchContainer(nameOrId);
  };

  return {
    members,
    nodes: () => fleet.nodes(),

    async node(idOrName) {
      const node = await fleet.node(idOrName);
      const [reservations, containers, running, certificates] = await Promise.all([
        moray.peek<NodeReservations>(BUCKETS.reservations.name, node.id), moray.count(BUCKETS.containers.name, eq('nodeId', node.id)), members.running(node.id), members.certificates(node.id),
      ]);
      const left = node.availability === 'draining' ? await moray.list<Container>(BUCKETS.containers.name, eq('nodeId', node.id), {limit: MAX_STAYING}) : [];
      return {
        node, reserved: reservations?.value.total ?? {memoryBytes: 0, nanoCpus: 0, diskBytes: 0, pids: 0}, containers, running, certificates, staying: staying(left.map((s) => s.value)),
      };
    },

    async inventory(nodeIdOrName) {
      return (await fleet.agent((await fleet.node(nodeIdOrName)).id)).inventory();
    },

    async containers(query) {
      const node = query.node === undefined ? undefined : await fleet.node(query.node);
      const filter = and(...(query.account === undefined ? [] : [eq('account', query.account)]), ...(node ? [eq('nodeId', node.id)] : []), ...(query.status ? [eq('status', query.status)] : []));
      return [...allSeen(context, (await moray.list<Container>(BUCKETS.containers.name, filter, {sort: newest, limit: limited(query.limit)})).map((s) => s.value))];
    },

    container,

    async volumes(query) {
      const node = query.node === undefined ? undefined : await fleet.node(query.node);
      const filter = and(...(query.account === undefined ? [] : [eq('account', query.account)]), ...(node ? [eq('nodeId', node.id)] : []));
      const found = await moray.list<Volume>(BUCKETS.volumes.name, filter, {sort: [{field: 'accountName', order: 'asc'}], limit: limited(query.limit)});
      const names = new Map((await fleet.nodes()).map(({id, name}) => [id, name]));
      return found.map(({value}) => ({...value, ...(names.has(value.nodeId) ? {node: names.get(value.nodeId)} : {})}));
    },

    async ingresses() {
      return (await moray.list<IngressRow>(BUCKETS.ingresses.name, ALL)).map((row) => row.value).sort((a, b) => a.endpoint.localeCompare(b.endpoint));
    },

    async jobs(query) {
      const filter = and(...(['execution', 'target', 'workflow'] as const).flatMap((f) => (query[f] === undefined ? [] : [eq(f, query[f])])));
      return (await moray.list<Job>(BUCKETS.jobs.name, filter, {sort: newest, limit: limited(query.limit)})).map((s) => s.value);
    },

    async job(id) {
      // A prefix will do, as with container ids.
      if (/^[0-9a-f-]{36}$/.test(id)) return workflow.get(id);
      const found = /^[0-9a-f-]+$/.test(id) ? await moray.list<Job>(BUCKETS.jobs.name, startsWith('_key', id), {limit: 2}) : [];
      if (found.length > 1) throw new CetusError('invalid', `several jobs begin with ${id}`);
      if (!found[0]) throw new CetusError('notFound', `No such job: ${id}`);
      return found[0].value;
    },

    cancelJob: (id) => workflow.cancel(id),
    retryJob: (id) => workflow.retryStuck(id),

    async why(nameOrId) {
      try {
        const found = await container(nameOrId);
        const job = await moray.peek<Job>(BUCKETS.jobs.name, found.provisionJobId);
        return {container: found, job: job?.value ?? null};
      } catch (err) {
        const job = await refusedCreate(context, nameOrId.replace(/^\//, ''));
        if (!job) throw err;
        return {container: null, job};
      }
    },

    async buckets() {
      return Promise.all(Object.values(BUCKETS).map(async ({name, version}) => ({name, version, objects: await moray.count(name, ALL)})));
    },

    async objects(bucket, filter, query) {
      const sort = query.sort ? [{field: query.sort.replace(/^-/, ''), order: query.sort.startsWith('-') ? 'desc' as const : 'asc' as const}] : undefined;
      return moray.list(known(bucket), filter || ALL, {limit: limited(query.limit), offset: query.offset, sort});
    },

    object: (bucket, key) => moray.get(known(bucket), key),
  };
}

/** The newest provision that was to make a container of this name or id and failed. */
async function refusedCreate(context: Context, nameOrId: string): Promise<Job | undefined> {
  const filter = and(eq('workflow', 'container.provision'), eq('execution', 'failed'));
  for await (const {value} of context.moray.find<Job>(BUCKETS.jobs.name, filter, {sort: [{field: 'createdAtNs', order: 'desc'}], limit: DEFAULT_LIMIT})) {
    const draft = (value.params as {container?: {id: string; name: string; accountName: string}}).container;
    if (draft && (draft.name === nameOrId || draft.accountName === nameOrId || draft.id.startsWith(nameOrId))) return value;
  }
  return undefined;
}
