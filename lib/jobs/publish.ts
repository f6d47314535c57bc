/** The host ports of a container, for the time that it runs: chosen among those that nobody in the datacenter holds, and the leases that hold them. */
import {CetusError} from '../base/errors';
import {isLocal} from '../fleet/registry';
import {ALL, and, eq, ge, KEY_FIELD, le, or} from '../moray/filter';
import type {BatchOp, Etag} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Container, NetworkAttachment, PublishedPort, RequestedPort} from '../schema/container';
import type {IngressRow, PortLease} from '../schema/objects';
import {choosePorts, collide, isWildcard, namesAnAddress, numberKey, opensAtNode, portKey, refusedPorts} from './ports';
import type {Ctx} from './services';
import {PORTS} from './steps';

const SINGLE_PORTS = BUCKETS.single_ports.name;

export interface Published { ports: PublishedPort[]; writes: BatchOp[]; ownLeases: boolean }

/** A port that is ours to choose is looked for among so many neighbours first: reading what all of a large datacenter holds takes 100 ms. */
const WINDOW = 256;

export async function publish(ctx: Ctx<unknown>, c: Container, attachments: readonly NetworkAttachment[], before: readonly PublishedPort[]): Promise<Published> {
  const [first] = attachments;
  if (!c.requestedPorts.length || !first) return {ports: [], writes: [], ownLeases: false};
  const endpoint = {name: c.name, id: attachments.find((a) => a.isDefaultRoute)?.endpointId ?? first.endpointId};
  const {ephemeralPorts: all} = ctx.services.config;
  const from = all.from + Math.floor(ctx.services.random() * Math.max(1, all.to - all.from + 2 - WINDOW));
  const window = {from, to: Math.min(all.to, from + WINDOW - 1)};
  let chosen: PublishedPort[] | undefined;
  let ownLeases = false;
  for (const ephemeral of isFew(c.requestedPorts) ? [window, all] : [all]) {
    const leases = (await ctx.moray.list<PortLease>(PORTS, heldAmong(c, ephemeral, before))).map((l) => l.value);
    const held = leases.filter((l) => l.containerId !== c.id);
    ownLeases = held.length !== leases.length;
    try {
      chosen = choosePorts({
        requested: c.requestedPorts, held, ephemeral, before, start: ctx.services.random(),
        shunned: ctx.services.recent.shunned(refusedPorts(c.nodeId), ''), endpoint,
      });
      break;
    } catch (err) {
      if (ephemeral === all || !/all ports are allocated/.test((err as Error).message)) throw err;
    }
  }
  const ports = await placed(ctx, c, chosen!);
  const writes = ports.map((port): BatchOp => {
    const {protocol, hostIp, hostPort, containerPort, proxyProtocol, atEndpoints} = port;
    const lease: PortLease = {
      nodeId: c.nodeId, protocol, hostIp, hostPort, account: c.account, containerId: c.id, containerPort, ...(proxyProtocol ? {proxyProtocol} : {}), ...(atEndpoints ? {atEndpoints} : {}),
    };
    return {op: 'put', bucket: PORTS, key: portKey(port), value: lease, etag: null};
  });
  return {ports, writes: [...writes, ...await againstOtherAddresses(ctx, c, ports)], ownLeases};
}

/**
 * The lease's key settles a race for one address; a wildcard and a single address are other keys. So who takes a port at a single address marks its number and holds that nobody has the wildcard, and
 * who takes the wildcard holds that no mark has been made since it looked: of two at the same moment the later one's commit fails and it decides anew. On one node the kernel sees to it.
 * Always the wildcard first, then the mark: two that hold one each would wait for each other.
 */
async function againstOtherAddresses(ctx: Ctx<unknown>, c: Container, ports: readonly PublishedPort[]): Promise<BatchOp[]> {
  if (ports.length === 0 || (await ctx.services.fleet.nodes()).length < 2) return [];
  const wildcards = ports.filter((p) => isWildcard(p.hostIp));
  const singles = [...new Map(ports.filter((p) => !isWildcard(p.hostIp)).map((p) => [numberKey(p), p])).values()];
  const marks = new Map<string, Etag>();
  const numbers = [...new Set(wildcards.map(numberKey))];
  if (numbers.length) for (const {key, etag} of await ctx.moray.list<object>(SINGLE_PORTS, or(...numbers.map((key) => eq(KEY_FIELD, key))), {limit: numbers.length})) marks.set(key, etag);
  // A mark that is older than our look at the leases says nothing new, but which is the older nobody knows.
  const marked = wildcards.filter((p) => marks.has(numberKey(p)));
  const leases = marked.length ? await ctx.moray.list<PortLease>(PORTS, or(...marked.map((p) => eq('hostPort', p.hostPort)))) : [];
  if (leases.some(({value}) => value.containerId !== c.id && marked.some((p) => collide(p, value)))) throw new CetusError('etagConflict', 'a port was taken at another address while it was looked for');
  return [
    ...singles.map((p): BatchOp => ({op: 'check', bucket: PORTS, key: portKey({...p, hostIp: ''}), etag: null})),
    ...singles.map((p): BatchOp => ({op: 'put', bucket: SINGLE_PORTS, key: numberKey(p), value: {}})),
    ...wildcards.map((p): BatchOp => ({op: 'check', bucket: SINGLE_PORTS, key: numberKey(p), etag: marks.get(numberKey(p)) ?? null})),
  ];
}

/** Half a window stays free of the container's own wishes. */
function isFew(requested: readonly RequestedPort[]): boolean {
  return requested.filter((p) => p.hostPort === 0 && !p.hostPortRange).length <= WINDOW / 2;
}

/** The leases that the choice depends on, by the port's number: those of the container itself too, which are leftovers. */
function heldAmong(c: Container, ephemeral: {from: number; to: number}, before: readonly PublishedPort[]): string {
  const between = ({from, to}: {from: number; to: number}): string => and(ge('hostPort', from), le('hostPort', to));
  const fixed = [...new Set([...c.requestedPorts, ...before].map((p) => p.hostPort).filter((port) => port !== 0))];
  const ranges = c.requestedPorts.flatMap((p) => (p.hostPortRange ? [between(p.hostPortRange)] : []));
  const anyPort = c.requestedPorts.some((p) => p.hostPort === 0 && !p.hostPortRange);
  return or(eq('containerId', c.id), ...fixed.map((port) => eq('hostPort', port)), ...ranges, ...(anyPort ? [between(ephemeral)] : []));
}

/** With who opens each. On the endpoint's own machine that is the node, as ever. */
async function placed(ctx: Ctx<unknown>, c: Container, ports: PublishedPort[]): Promise<PublishedPort[]> {
  const elsewhere = ports.some((p) => namesAnAddress(p.hostIp)) && !isLocal(await ctx.services.fleet.node(c.nodeId));
  const addresses = new Set(elsewhere ? (await ctx.moray.list<IngressRow>(BUCKETS.ingresses.name, ALL)).flatMap((row) => row.value.addresses) : []);
  return ports.map((p) => (opensAtNode(p, addresses) ? p : {...p, atEndpoints: true}));
}
