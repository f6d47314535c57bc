/**
 * Which hosts a fleet of test hosts has, and where everything of each lies: DIR/fleet.json, made once. Hosts that were there stay, so a smaller number takes
 * none away. What a machine has only one of (namespaces, interfaces, control groups) carries a host's prefix, four characters of the instance's and its number.
 */
import {randomUUID} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import {routedSubnets, type Instance} from '../up/instance';
import {BlockClaims} from '../up/blocks';

/** Agents listen here, each at its host's address; endpoints for agents from the other port on, at ours. */
export const AGENT_PORT = 7070;
export const FLEET_PORT = 7100;

export interface NodeLayout { number: number; name: string; nodeId: string; prefix: string; address: string }
/** `base`: the three bytes that the underlay's addresses have in common. */
export interface FleetLayout { base: string; nodes: NodeLayout[] }

export const nodeDir = (dir: string, node: NodeLayout): string => path.join(dir, 'nodes', String(node.number));
export const namespaceOf = (node: NodeLayout, prefix: string): string => `cetus-h${node.number}-${prefix}`;
/** This machine's own address on the underlay: where endpoints are, and the hosts' way out. */
export const ourAddress = (layout: FleetLayout): string => `${layout.base}.1`;

/** Undefined where the directory is no fleet's. */
export function knownLayout(dir: string): FleetLayout | undefined {
  const file = path.join(dir, 'fleet.json');
  if (!fs.existsSync(file)) return undefined;
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as FleetLayout;
  } catch (err) {
    throw new CetusError('internal', `${file} cannot be read; move it away only if this fleet may be forgotten`, {cause: err});
  }
}

/** `present`: this fleet's underlay stands already, left by one that was killed; then its addresses are its own. */
export function loadLayout(dir: string, instance: Instance, nodes: number, present: boolean, claims = new BlockClaims()): FleetLayout {
  const known = knownLayout(dir);
  const base = known && (present || isFree(known.base, dir, claims)) ? known.base : unusedBase(dir, claims);
  const old = known?.nodes ?? [];
  const made = Array.from({length: Math.max(nodes, old.length)}, (_, n): NodeLayout => ({
    number: n + 1, name: `node-${n + 1}`, nodeId: old[n]?.nodeId ?? randomUUID(), prefix: old[n]?.prefix ?? prefixOf(instance, n + 1), address: `${base}.${n + 11}`,
  }));
  const layout: FleetLayout = {base, nodes: made};
  const file = path.join(dir, 'fleet.json');
  fs.writeFileSync(`${file}.new`, `${JSON.stringify(layout, null, 2)}\n`, {mode: 0o600});
  fs.renameSync(`${file}.new`, file);
  return layout;
}

/** In one of five fleets of three hosts one would otherwise bear the instance's own, and what is the fleet's (its underlay, the namespaces of all hosts) would pass for that host's. */
function prefixOf(instance: Pick<Instance, 'prefix'>, number: number): string {
  const prefix = `${instance.prefix.slice(0, 4)}${number.toString(36)}`;
  return prefix === instance.prefix ? `${instance.prefix.slice(0, 4)}0` : prefix;
}

/** Of the addresses that are nobody's on the internet (RFC 2544), from a place on that is different each time: several may look at once. */
function unusedBase(dir: string, claims: BlockClaims): string {
  const start = Math.floor(Math.random() * 256);
  for (let n = 0; n < 256; n += 1) {
    const base = `198.19.${(start + n) % 256}`;
    if (isFree(base, dir, claims)) return base;
  }
  throw new CetusError('conflict', 'every underlay of test hosts (198.19.0.0/16) is in use on this machine');
}

function isFree(base: string, dir: string, claims: BlockClaims): boolean {
  const routed = routedSubnets(fs.readFileSync('/proc/net/route', 'utf8'));
  return !routed.some((subnet) => subnet.startsWith(`${base}.`) || subnet.startsWith('198.18.0.0/15') || subnet.startsWith('198.19.0.0/16')) && claims.claim(`${base}.0/24`, dir);
}
