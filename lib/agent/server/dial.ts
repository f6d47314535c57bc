/**
 * A connection to a port of a container, made here and handed to the endpoint that asks: for published ports that the node itself opens to nobody. It goes to the
 * address that published ports lead to, over the container's own bridge. Half-open both ways; datagrams as lib/base/datagrams.ts writes them.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import type {Duplex} from 'node:stream';
import {MAX_QUEUED_BYTES, readDatagrams, writeDatagram} from '../../base/datagrams';
import {CetusError} from '../../base/errors';
import type {UpgradeContext} from './upgrades';

const CONNECT_MS = 5_000;
const KEEP_ALIVE_MS = 60_000;

export async function dial({supervisor, parts, query, accept}: UpgradeContext, id: string): Promise<void> {
  const port = query.number('port', 0);
  const protocol = query.text('protocol');
  if (port < 1 || port > 65_535) throw new CetusError('invalid', `port is a number from 1 to 65535, not "${query.text('port')}"`);
  if (protocol !== 'tcp' && protocol !== 'udp') throw new CetusError('invalid', `protocol is tcp or udp, not "${protocol}"`);
  supervisor.unit(id);
  const address = await parts.network.publishedAddress(id);
  if (protocol === 'tcp') join(await connected(address, port), accept());
  else exchange(await openUdp(address, port), accept());
}

function connected(host: string, port: number): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({host, port, allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS, timeout: CONNECT_MS});
    const fail = (why: string, cause?: unknown): void => {
      socket.destroy();
      reject(new CetusError('unavailable', `nobody answers at port ${port} of the container: ${why}`, {cause}));
    };
    socket.once('timeout', () => fail('timed out'));
    socket.once('error', (err) => fail(err.message, err));
    socket.once('connect', () => {
      socket.removeAllListeners('timeout').removeAllListeners('error').setTimeout(0);
      resolve(socket);
    });
  });
}

/** The end of one direction is passed on; the end of one of them is the other's. */
function join(inner: net.Socket, outer: Duplex): void {
  inner.on('error', () => outer.destroy());
  outer.on('error', () => inner.destroy());
  inner.once('close', () => { if (!(inner.readableEnded && inner.writableFinished)) outer.destroy(); });
  outer.once('close', () => { if (!(outer.readableEnded && outer.writableFinished)) inner.resetAndDestroy(); });
  inner.pipe(outer);
  outer.pipe(inner);
}

function openUdp(address: string, port: number): Promise<dgram.Socket> {
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket('udp4');
    socket.once('error', reject);
    socket.connect(port, address, () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}

/** Until the endpoint ends it, which knows when a client has been quiet for long enough. */
function exchange(inner: dgram.Socket, outer: Duplex): void {
  let open = true;
  const end = (): void => {
    if (!open) return;
    open = false;
    inner.close();
    outer.destroy();
  };
  // What was sent before anybody listened in the container is lost, as datagrams are; the client's next one may be heard.
  inner.on('error', () => undefined);
  inner.on('message', (datagram) => void writeDatagram(outer, datagram));
  outer.once('end', end).once('close', end);
  readDatagrams(outer, (datagram) => {
    if (open && inner.getSendQueueSize() <= MAX_QUEUED_BYTES) inner.send(datagram, () => undefined);
  });
}
