/**
 * What operators decide about nodes: labels, whether they take containers, and that one is no member any more. Lib/admin is the only caller.
 *
 * A removal can be broken off at any point and asked for again: the node's certificates go first, so that it cannot come back in between, then what it had, then
 * the node. It takes away what can be got back from nowhere, so it wants to be told twice (`force`) where there is any.
 */
import {formatNs} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import {revocationWrites} from '../fleet/authority/revocations';
import {and, eq} from '../moray/filter';
import type {BatchOp, Stored} from '../moray/moray';
import type {NodeIdentity} from '../schema/authority';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import type {Node} from '../schema/node';
import type {Volume} from '../schema/objects';
import type {Context} from './context';
import {eventWrite} from './events';
import type {MemberVerbs, RemovedNode} from './verbs';

const NODES = BUCKETS.nodes.name;
const CONTAINERS = BUCKETS.containers.name;
const VOLUMES = BUCKETS.volumes.name;
const TRIES = 8;
const AT_ONCE = 8;
const NAMED = 5;
const FEED_MS = 10_000;
const FEED_POLL_MS = 20;
const LABEL = /^[^\s=]{1,255}$/;
const MAX_LABELS = 1000;
const MAX_LABEL_BYTES = 65_536;

export function memberVerbs(context: Context): MemberVerbs {
  const {moray, fleet, clock, ids, log} = context;

  /** Read fresh and written on the etag: heartbeats' liveness is written to the same row. */
  async function change(idOrName: string, next: (node: Node) => Node): Promise<Node> {
    const {id} = await fleet.node(idOrName);
    for (let tries = 1; ; tries += 1) {
      const stored = await moray.get<Node>(NODES, id);
      if (stored.value.removing) throw new CetusError('conflict', `node ${stored.value.name} is being removed`);
      try {
        return (await moray.put(NODES, id, next(stored.value), {etag: stored.etag})).value;
      } catch (err) {
        if (!isCetusError(err, 'etagConflict') || tries >= TRIES) throw err;
      }
    }
  }

  const available = (idOrName: string, availability: Node['availability'], reason: string): Promise<Node> => change(idOrName, (node) => {
    const {availabilityReason: _reason, ...rest} = node;
    return {...rest, availability, availabilityAt: formatNs(clock.nowNs()), ...(reason === '' ? {} : {availabilityReason: reason})};
  });

  const tokens = (): NonNullable<typeof fleet.tokens> => {
    if (!fleet.tokens) throw new CetusError('unsupported', 'this datacenter has no authority of its own: one machine needs none, and a fleet names a key file in its endpoints\' configuration (authority)');
    return fleet.tokens;
  };

  /** Why not, without force. */
  function refuseLoss(node: Node, containers: Container[], volumes: Volume[]): void {
    if (node.liveness === 'alive' || node.liveness === 'suspect')
      throw new CetusError('conflict', `node ${node.name} is ${node.liveness}: drain it and end its agent first, or remove it by force, which cuts it off while its containers run on there`);
    const has = [containers.length ? `${containers.length} container${containers.length === 1 ? '' : 's'} (${some(containers.map((c) => c.accountName))})` : '',
      volumes.length ? `${volumes.length} volume${volumes.length === 1 ? '' : 's'} (${some(volumes.map((v) => v.accountName))})` : ''].filter(Boolean);
    if (has.length) throw new CetusError('conflict', `node ${node.name} holds ${has.join(' and ')}, which would be lost; by force they are`);
  }

  async function removeNode(idOrName: string, force: boolean): Promise<RemovedNode> {
    const known = await fleet.node(idOrName);
    if (known.facts.agentUrl.startsWith('unix:')) throw new CetusError('unsupported', `node ${known.name} is on the endpoint's own machine, and would join again`);
    const on = async (): Promise<{containers: Container[]; volumes: Volume[]}> => {
      const [containers, volumes] = await Promise.all([moray.list<Container>(CONTAINERS, eq('nodeId', known.id)), moray.list<Volume>(VOLUMES, eq('nodeId', known.id))]);
      return {containers: containers.map((s) => s.value), volumes: volumes.map((s) => s.value)};
    };
    const lost = await on();
    await markRemoving(known.id, (node) => { if (!force && !node.removing) refuseLoss(node, lost.containers, lost.volumes); });
    // The chains look at the copy that the change feed keeps.
    for (const untilMs = clock.now() + FEED_MS; !(await fleet.node(known.id)).removing;) {
      if (clock.now() > untilMs) throw new CetusError('timeout', `node ${known.name} is marked for removal, which this endpoint has not seen yet; ask once more`);
      await clock.sleep(FEED_POLL_MS);
    }
    // Placed there a moment ago, before the mark.
    const {containers, volumes} = await on();
    for (const more of containers) if (!lost.containers.some((c) => c.id === more.id)) lost.containers.push(more);
    for (let i = 0; i < containers.length; i += AT_ONCE) {
      await Promise.all(containers.slice(i, i + AT_ONCE).map((c) => context.run({account: c.account, requestId: ids.uuid()}, 'container.destroy', {containerId: c.id, force: true, removeVolumes: false})
        .catch((err: unknown) => { if (!isCetusError(err, 'notFound')) throw err; })));
    }
    for (const volume of volumes) {
      await moray.batch([
        {op: 'delete', bucket: VOLUMES, key: volume.id},
        eventWrite(clock, ids, {account: volume.account, type: 'volume', action: 'destroy', actorId: volume.name, attributes: {driver: volume.driver}}),
      ]);
    }
    if (await moray.count(CONTAINERS, eq('nodeId', known.id))) throw new CetusError('conflict', `node ${known.name} has containers again; ask once more`);
    await moray.batch([
      {op: 'delete', bucket: BUCKETS.reservations.name, key: known.id}, {op: 'deleteMany', bucket: BUCKETS.remains.name, filter: eq('nodeId', known.id)}, {op: 'delete', bucket: NODES, key: known.id},
    ]);
    log.warn({nodeId: known.id, node: known.name, containers: lost.containers.length, volumes: lost.volumes.length}, 'node removed');
    return {
      id: known.id, name: known.name,
      containers: lost.containers.map(({id, account, name, status}) => ({id, account, name, status})), volumes: lost.volumes.map(({account, name}) => ({account, name})),
    };
  }

  async function markRemoving(id: string, check: (node: Node) => void): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const stored: Stored<Node> = await moray.get<Node>(NODES, id);
      check(stored.value);
      const {writes} = await revocationWrites(moray, clock, id, 'the node was removed');
      const marked: Node = {...stored.value, availability: 'cordoned', availabilityReason: 'it is being removed', availabilityAt: formatNs(clock.nowNs()), removing: true};
      try {
        await moray.batch([...writes, {op: 'put', bucket: NODES, key: id, value: marked, etag: stored.etag} satisfies BatchOp]);
        return;
      } catch (err) {
        if (!isCetusError(err, 'etagConflict') || tries >= TRIES) throw err;
      }
    }
  }

  return {
    label: (idOrName, {add = {}, remove = []}) => {
      for (const [name, value] of Object.entries(add)) if (!LABEL.test(name) || Buffer.byteLength(value) > MAX_LABEL_BYTES) throw new CetusError('invalid', `label ${JSON.stringify(name)}: a name without white space or =, and at most 64 KiB of value`);
      return change(idOrName, (node) => {
        const labels = {...node.labels, ...add};
        for (const name of remove) delete labels[name];
        if (Object.keys(labels).length > MAX_LABELS) throw new CetusError('invalid', `a node has at most ${MAX_LABELS} labels`);
        return {...node, labels};
      });
    },
    cordon: (idOrName, reason) => available(idOrName, 'cordoned', reason),
    uncordon: (idOrName) => available(idOrName, 'active', ''),
    drain: (idOrName, reason) => available(idOrName, 'draining', reason),
    remove: removeNode,
    createToken: async ({ttlSeconds, labels}) => {
      const of = tokens();
      const made = await of.create({...(ttlSeconds === undefined ? {} : {ttlMs: ttlSeconds * 1000}), labels: labels ?? {}});
      return {...made, url: of.url};
    },
    tokens: () => tokens().list(),
    removeToken: async (id) => {
      await tokens().remove(id);
      return {id};
    },
    certificates: async (nodeId) => {
      const stored = await moray.peek<NodeIdentity>(BUCKETS.identities.name, nodeId);
      return (stored?.value.certificates ?? []).map(({serial, notAfterMs}) => ({serial, notAfter: new Date(notAfterMs).toISOString()}));
    },
    running: (nodeId) => moray.count(CONTAINERS, and(eq('nodeId', nodeId), eq('status', 'running'))),
  };
}

const some = (names: string[]): string => names.slice(0, NAMED).join(', ') + (names.length > NAMED ? ', ...' : '');
