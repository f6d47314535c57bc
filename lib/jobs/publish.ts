/** The host ports of a container, for the time that it runs: chosen among those that nobody in the datacenter holds, and the leases that hold them. */
import {isLocal} from '../fleet/registry';
import {ALL, and, eq, ge, le, or} from '../moray/filter';
import type {BatchOp} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Container, NetworkAttachment, PublishedPort, RequestedPort} from '../schema/container';
import type {IngressRow, PortLease} from '../schema/objects';
import {choosePorts, namesAnAddress, opensAtNode, portKey, refusedPorts} from './ports';
import type {Ctx} from './services';
import {PORTS} from './steps';

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
  return {ports, writes, ownLeases};
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
