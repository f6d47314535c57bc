/**
 * What a node knows of where others are on one network, and how it learns: rows are merged by the version of each address, so that tellers may
 * overtake each other and repeat themselves. Pure.
 */
import type {NetworkTable, TableNode, TableRow} from '../../schema/agent';
import {type Underlay, UNDERLAY_PORT} from '../../schema/node';

/** As it is on disk. */
export interface KnownTable {
  networkId: string;
  rows: Record<string, TableRow>;
  /** By address: nobody has had it since this version, as far as rows up to it say. Kept, so that a late teller does not bring a row back. */
  gone: Record<string, string>;
  nodes: Record<string, TableNode>;
}

/** A container elsewhere, and how its node is reached. */
export interface Remote { address: string; mac: string; aliases: string[]; node: string; port: number }

/** A teller is late by seconds; so many ends of addresses do not come in that time. */
const MAX_GONE = 10_000;

export function emptyTable(networkId: string): KnownTable {
  return {networkId, rows: {}, gone: {}, nodes: {}};
}

export function mergeTable(known: KnownTable, told: NetworkTable): KnownTable {
  const rows = {...known.rows};
  const gone = {...known.gone};
  const versionOf = (address: string): bigint => later(rows[address]?.version, gone[address]);
  for (const row of told.rows) {
    if (BigInt(row.version) <= versionOf(row.address)) continue;
    rows[row.address] = row;
    delete gone[row.address];
  }
  for (const {address, version} of told.gone) {
    if (BigInt(version) < versionOf(address)) continue;
    delete rows[address];
    gone[address] = version;
  }
  if (told.asOf !== undefined) {
    const all = new Set(told.rows.map(row => row.address));
    // No end is remembered: the teller has not seen one, and what it sees later is newer than this.
    for (const {address, version} of Object.values(rows)) if (!all.has(address) && BigInt(version) <= BigInt(told.asOf)) delete rows[address];
  }
  return {networkId: known.networkId, rows, gone: newest(gone), nodes: mergeNodes(known.nodes, told.nodes, rows)};
}

function later(a = '0', b = '0'): bigint {
  return BigInt(a) > BigInt(b) ? BigInt(a) : BigInt(b);
}

function newest(gone: Record<string, string>): Record<string, string> {
  const all = Object.entries(gone);
  if (all.length <= MAX_GONE) return gone;
  return Object.fromEntries(all.sort(([, a], [, b]) => (BigInt(a) > BigInt(b) ? -1 : 1)).slice(0, MAX_GONE / 2));
}

/** Those that a row names. */
function mergeNodes(known: Record<string, TableNode>, told: TableNode[], rows: Record<string, TableRow>): Record<string, TableNode> {
  const named = new Set(Object.values(rows).map(row => row.nodeId));
  const merged = new Map(Object.entries(known));
  for (const node of told) if ((merged.get(node.nodeId)?.generation ?? -1) <= node.generation) merged.set(node.nodeId, node);
  return Object.fromEntries([...merged].filter(([nodeId]) => named.has(nodeId)));
}

/** By address; not those of this node, which it knows better, nor those on nodes that cannot be reached. */
export function remotesOf(known: KnownTable, own: Underlay): Remote[] {
  return Object.values(known.rows).flatMap((row): Remote[] => {
    const node = known.nodes[row.nodeId];
    if (!node) return [];
    const port = node.port ?? UNDERLAY_PORT;
    if (node.address === own.address && port === (own.port ?? UNDERLAY_PORT)) return [];
    return [{address: row.address, mac: row.mac.toLowerCase(), aliases: row.aliases, node: node.address, port}];
  }).sort((a, b) => (a.address < b.address ? -1 : 1));
}
