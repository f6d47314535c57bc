/** Publications in memory, ports that are free, and the two ends of a connection. */
import dgram from 'node:dgram';
import net from 'node:net';
import type {Duplex} from 'node:stream';
import type {Publication, PublicationListener, PublicationVerbs} from '../../lib/datacenter/verbs';
import type {IngressRow} from '../../lib/schema/objects';

export class FakePublications implements PublicationVerbs {
  readonly rows = new Map<string, Publication>();
  readonly said = new Map<string, IngressRow>();
  readonly hosts = new Map<string, string | undefined>();
  dialled: Publication[] = [];
  /** What an agent answers to a dial. */
  agent: (publication: Publication) => Promise<Duplex> = async () => { throw new Error('nobody'); };
  private readonly listeners = new Set<PublicationListener>();

  async follow(listener: PublicationListener, signal: AbortSignal): Promise<void> {
    for (const [key, publication] of this.rows) listener.put(key, publication);
    this.listeners.add(listener);
    signal.addEventListener('abort', () => this.listeners.delete(listener));
  }
  async addressOf(nodeId: string): Promise<string | undefined> { return this.hosts.get(nodeId); }
  dial(publication: Publication): Promise<Duplex> {
    this.dialled.push(publication);
    return this.agent(publication);
  }
  async announce(endpoint: string, row: IngressRow | undefined): Promise<void> {
    if (row) this.said.set(endpoint, row);
    else this.said.delete(endpoint);
  }

  put(publication: Publication, key = keyOf(publication)): void {
    this.rows.set(key, publication);
    for (const listener of this.listeners) listener.put(key, publication);
  }
  drop(publication: Publication, key = keyOf(publication)): void {
    this.rows.delete(key);
    for (const listener of this.listeners) listener.drop(key);
  }
}

const keyOf = ({protocol, hostIp, hostPort}: Publication): string => `${protocol}/${hostIp || '0.0.0.0'}/${hostPort}`;

export const publication = (more: Partial<Publication>): Publication => ({
  protocol: 'tcp', hostIp: '', hostPort: 0, account: 'default', containerId: 'c1', containerPort: 80, nodeId: 'n1', atEndpoints: false, ...more,
});

export interface Server { port: number; close(): Promise<void> }

export async function serveTcp(handle: (socket: net.Socket) => void, address = '127.0.0.1', port = 0): Promise<Server> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer({allowHalfOpen: true}, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    handle(socket);
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, address, resolve));
  return {port: (server.address() as net.AddressInfo).port, close: () => new Promise((resolve) => {
    server.close(() => resolve());
    for (const socket of sockets) socket.destroy();
  })};
}

export async function serveUdp(handle: (datagram: Buffer, answer: (datagram: Buffer) => void, from: dgram.RemoteInfo) => void, address = '127.0.0.1', port = 0): Promise<Server> {
  const socket = dgram.createSocket('udp4');
  socket.on('message', (datagram, from) => handle(datagram, (back) => socket.send(back, from.port, from.address), from));
  await new Promise<void>((resolve) => socket.bind(port, address, resolve));
  return {port: socket.address().port, close: () => new Promise((resolve) => socket.close(resolve))};
}

export function connect(port: number, host = '127.0.0.1'): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({port, host, allowHalfOpen: true}, () => resolve(socket.off('error', reject).on('error', () => undefined)));
    socket.once('error', reject);
  });
}

/** All that it says to its end. Not by iteration, which would destroy it at that. */
export function text(stream: Duplex): Promise<string> {
  return new Promise((resolve, reject) => {
    let all = '';
    stream.on('data', (chunk: Buffer) => { all += chunk.toString(); }).once('end', () => resolve(all)).once('error', reject).once('close', () => reject(new Error('closed before its end')));
  });
}

export const closed = (stream: Duplex): Promise<void> => new Promise((resolve) => void (stream.destroyed ? resolve() : stream.once('close', () => resolve()).resume()));

/** Says it, and hears what comes back until the other side has ended. */
export async function say(port: number, words: string, host?: string): Promise<string> {
  const socket = await connect(port, host);
  socket.end(words);
  return text(socket);
}

export async function isOpen(port: number, host?: string): Promise<boolean> {
  try {
    (await connect(port, host)).destroy();
    return true;
  } catch {
    return false;
  }
}
