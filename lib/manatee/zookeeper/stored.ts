/**
 * What stands in the nodes, as JSON, checked when it is read: whatever else is found there is an error that names the node. A peer's that cannot be read must not
 * blind the others, who would replace nobody any more: such a peer is `illegible`.
 */
import Ajv, {type ValidateFunction} from 'ajv';
import {CetusError} from '../../base/errors';
import type {Announcement} from '../coordination';
import type {ClusterState, HistoryEntry} from '../state';

const text = {type: 'string', minLength: 1};
const generation = {type: 'integer', minimum: 0};
const lsn = {type: 'string', pattern: '^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$'};
const optional = (schema: object): object => ({anyOf: [schema, {type: 'null'}]});
// Unknown properties pass: a newer peer may write them while an older one still reads.
const object = (properties: Record<string, object>): object => ({type: 'object', required: Object.keys(properties), properties});

const address = {id: text, host: text, port: {type: 'integer', minimum: 1, maximum: 65535}, statusUrl: {type: 'string'}};
const peer = object(address);
const state = object({
  generation: {type: 'integer', minimum: 1}, primary: peer, sync: optional(peer), async: {type: 'array', items: peer},
  deposed: {type: 'array', items: object({...address, deposedIn: generation})}, initWal: lsn, systemId: optional(text),
  freeze: optional(object({reason: {type: 'string'}, by: {type: 'string'}})), oneNodeWriteMode: {type: 'boolean'},
  promote: optional(object({peer: text, generation, by: {type: 'string'}})),
});

const ajv = new Ajv({strict: false});
const checks = {
  state: ajv.compile<ClusterState>(state),
  history: ajv.compile<HistoryEntry>(object({at: {type: 'string'}, by: {type: 'string'}, reason: {type: 'string'}, state})),
  peer: ajv.compile<Announcement>(object({...address, systemId: optional(text), ready: {type: 'boolean'}, restoredIn: generation})),
};

export const encode = (value: ClusterState | HistoryEntry | Announcement): Buffer => Buffer.from(JSON.stringify(value));

export const decodeState = (path: string, data: Buffer): ClusterState => decode(path, data, checks.state);
export const decodeEntry = (path: string, data: Buffer): HistoryEntry => decode(path, data, checks.history);
export function decodePeer(path: string, data: Buffer): Announcement {
  const announcement = decode(path, data, checks.peer);
  if (!path.endsWith(`/${announcement.id}`)) throw wrong(path, `it speaks of peer ${announcement.id}`);
  return announcement;
}

/** Alive, and good for nothing: nobody takes it for dead, gives it a place, or founds a cluster beside it, for it may well have data. */
export const illegible = (id: string): Announcement => ({id, host: '', port: 0, statusUrl: '', systemId: 'illegible', ready: false, restoredIn: 0});

function decode<T>(path: string, data: Buffer, check: ValidateFunction<T>): T {
  let value: unknown;
  try {
    value = JSON.parse(data.toString('utf8'));
  } catch (err) {
    throw wrong(path, 'it is no JSON', err);
  }
  if (check(value)) return value;
  const [first] = check.errors ?? [];
  throw wrong(path, `${first?.instancePath || 'it'} ${first?.message ?? 'is not as expected'}`);
}

const wrong = (path: string, what: string, cause?: unknown): CetusError => new CetusError('invalid', `ZooKeeper's node ${path} is not ours to read: ${what}`, {cause, info: {node: path}});
