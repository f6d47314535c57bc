/**
 * Holds a bound socket for each published port, so that a foreign program's claim is found before the container starts, and ours by
 * foreign programs. Packets never reach these sockets: the rules lead them to the container before. A connection that arrives all the same
 * means that the rules are gone, and says so (`onStray`). SCTP ports are published and not held: Node has no such sockets.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import {CetusError} from '../../base/errors';
import {type HostPort, portKey, shownAddress} from './ports';

type Held = {close(done: () => void): void};

export class Reservations {
  private readonly held = new Map<string, Held>();

  constructor(private readonly onStray: () => void) {}

  /** Rejects with the system's error (EADDRINUSE, EADDRNOTAVAIL...). Holding what is held is a success. */
  async hold(port: HostPort): Promise<void> {
    const key = portKey(port);
    if (this.held.has(key) || port.protocol === 'sctp') return;
    this.held.set(key, await (port.protocol === 'udp' ? this.bindUdp(port) : this.listenTcp(port)));
  }

  async release(port: HostPort): Promise<void> {
    const key = portKey(port);
    const socket = this.held.get(key);
    this.held.delete(key);
    if (socket) await new Promise<void>(done => socket.close(() => done()));
  }

  async releaseAll(): Promise<void> {
    const sockets = [...this.held.values()];
    this.held.clear();
    await Promise.all(sockets.map(socket => new Promise<void>(done => socket.close(() => done()))));
  }

  private listenTcp(port: HostPort): Promise<Held> {
    return new Promise((resolve, reject) => {
      const server = net.createServer(socket => {
        socket.on('error', () => undefined).destroy();
        this.onStray();
      });
      server.once('error', reject);
      server.listen({host: shownAddress(port.hostIp), port: port.hostPort, exclusive: true}, () => {
        server.off('error', reject);
        server.on('error', () => undefined);
        resolve(server.unref());
      });
    });
  }

  private bindUdp(port: HostPort): Promise<Held> {
    return new Promise((resolve, reject) => {
      const socket = dgram.createSocket({type: net.isIPv6(port.hostIp) ? 'udp6' : 'udp4', reuseAddr: false});
      socket.once('error', reject);
      socket.on('message', () => this.onStray());
      socket.bind({address: shownAddress(port.hostIp), port: port.hostPort, exclusive: true}, () => {
        socket.off('error', reject);
        socket.on('error', () => undefined);
        socket.unref();
        resolve({close: done => socket.close(done)});
      });
    });
  }
}

export function checkHostIp(hostIp: string): void {
  if (hostIp !== '' && !net.isIPv4(hostIp)) throw new CetusError('unsupported', `publishing a port on ${hostIp} is not supported: only IPv4 addresses are`);
}
