/**
 * Who calls, by the certificate that was shown: an endpoint gives orders, a node takes blobs and nothing else. On a unix socket its directory has
 * decided already.
 */
import type {IncomingMessage} from 'node:http';
import {CetusError} from '../../base/errors';
import {peerOf, type PeerRole} from '../../base/peer';

export interface Caller { role: 'local' | 'other' | PeerRole; name: string }

/** What callers on a unix socket call themselves; nothing but fairness rests on it. */
const NAME_HEADER = 'x-cetus-node';
const MAX_NAME = 128;

export function callerOf({socket, headers}: Pick<IncomingMessage, 'socket' | 'headers'>): Caller {
  try {
    const peer = peerOf(socket);
    return peer ? {role: peer.role, name: peer.id} : {role: 'local', name: String(headers[NAME_HEADER] ?? '').slice(0, MAX_NAME)};
  } catch (err) {
    if (err instanceof CetusError) return {role: 'other', name: ''};
    throw err;
  }
}

/** Nodes take blobs from each other; what a container is to do they have no say in. */
export function mayOrder(req: Pick<IncomingMessage, 'socket' | 'headers'>): void {
  const {role, name} = callerOf(req);
  if (role === 'node') throw new CetusError('forbidden', `node ${name} gives no orders`);
}
