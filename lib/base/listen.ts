/**
 * Where one of our processes listens for another: a unix socket, whose directory is the wall, or mutual TLS. (Where clients and operators come
 * in is their edge's own matter: lib/docker/listen.ts.)
 */
import {rmSync} from 'node:fs';
import type {Server} from 'node:http';
import type {Server as HttpsServer} from 'node:https';
import type {AddressInfo} from 'node:net';
import {Credentials, type TlsMaterial} from './credentials';

export type InternalAddress = {socketPath: string} | {host: string; port: number; tls: TlsMaterial | Credentials};

/** Resolves once `server` listens, with the URL that the other side is configured with (port 0 asks for any). */
export async function listenAt(server: Server, at: InternalAddress): Promise<string> {
  // The socket of a life before this one; whoever calls holds the data directory's lock, so nobody else listens there.
  if ('socketPath' in at) rmSync(at.socketPath, {force: true});
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen('socketPath' in at ? {path: at.socketPath} : {host: at.host, port: at.port}, () => {
      server.off('error', reject);
      resolve();
    });
  });
  // Connections that are open keep the certificate that they were made with.
  if ('tls' in at && at.tls instanceof Credentials) server.once('close', at.tls.onReplace((next) => (server as HttpsServer).setSecureContext(next)));
  if ('socketPath' in at) return `unix://${at.socketPath}`;
  const {address, port} = server.address() as AddressInfo;
  return `https://${address.includes(':') ? `[${address}]` : address}:${port}`;
}
