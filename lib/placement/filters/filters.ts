/** All filters in their order (README.md): the first one that rejects a node counts. */
import type {FilterName, PlacementRequest} from '../../schema/placement';
import type {NodeEntry} from '../node-entry';
import type {NodeView} from '../placement';
import {lacking} from './capacity';
import {holds, type Located} from './expression';
import {lackingHardware} from './hardware';
import {takenPort} from './port';

export interface Asked {
  request: PlacementRequest;
  hard: Located[];
  soft: Located[];
  /** The node that holds the volumes, if any does. */
  pinned: {nodeId: string; volumeName: string} | undefined;
}

export function rejects(entry: NodeEntry, view: NodeView, asked: Asked): {filter: FilterName; detail: string} | undefined {
  const {request, pinned} = asked;
  if (view.liveness !== 'alive') return {filter: 'liveness', detail: view.liveness};
  if (view.availability !== 'active') return {filter: 'cordon', detail: view.availability};
  if (request.platform !== undefined && !platformFits(view.platform, request.platform)) return {filter: 'platform', detail: request.platform};
  const lacked = lackingHardware(view, request.hardware);
  if (lacked) return {filter: 'hardware', detail: lacked};
  if (pinned && pinned.nodeId !== view.id) return {filter: 'volume', detail: pinned.volumeName};
  for (const expression of asked.hard)
    if (!holds(entry, view, expression, request.account)) return {filter: expression.kind, detail: expression.text};
  const port = takenPort(entry, request.ports);
  if (port) return {filter: 'port', detail: port};
  const resource = lacking(view, request.reservation);
  return resource ? {filter: 'capacity', detail: resource} : undefined;
}

/** A request without a variant takes any variant. */
export function platformFits(node: string, asked: string): boolean {
  return node === asked || node.startsWith(`${asked}/`) || asked.startsWith(`${node}/`);
}
