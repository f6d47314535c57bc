/**
 * One address in front of several endpoints, as any TCP balancer: a connection goes to the next endpoint in turn, or to another where that one does not
 * listen. Half-closed connections stay half-closed, which hijacked streams need; a client that is gone altogether takes its connection to the endpoint along.
 */
import net from 'node:net';
import {CetusError} from '../../base/errors';
import {noticeHangUp} from '../../base/hang-up';
import type {ListenAddress} from '../address';
import type {Part} from '../up/foreground';

const CONNECT_MS = 3_000;

export class Balancer {
  private readonly server = net.createServer({allowHalfOpen: true, pauseOnConnect: true}, (client) => void this.serve(client));
  private readonly clients = new Set<net.Socket>();
  private turn = 0;

  constructor(private readonly targets: {host: string; port: number}[]) {}

  async listen(host: string, port: number): Promise<ListenAddress> {
    await new Promise<void>((resolve, reject) => this.server.once('error', reject).listen(port, host, resolve));
    return {kind: 'tcp', host, port: (this.server.address() as net.AddressInfo).port};
  }

  get part(): Part {
    return {name: 'balancer', pid: () => process.pid, stop: () => this.close()};
  }

  private async close(): Promise<void> {
    if (!this.server.listening) return;
    const closed = new Promise((resolve) => this.server.close(resolve));
    for (const client of this.clients) client.destroy();
    await closed;
  }

  private async serve(client: net.Socket): Promise<void> {
    this.clients.add(client);
    client.once('close', () => this.clients.delete(client));
    client.on('error', () => client.destroy());
    const first = this.turn++;
    for (let tries = 0; tries < this.targets.length; tries += 1) {
      try {
        const upstream = await connected(this.targets[(first + tries) % this.targets.length]!);
        if (client.destroyed) return void upstream.destroy();
        upstream.on('error', () => client.destroy());
        // One that is gone wholly takes the other along; the end of one direction is only that.
        client.once('close', () => upstream.destroy());
        upstream.once('close', () => client.destroy());
        for (const socket of [client, upstream]) {
          socket.setNoDelay(true);
          noticeHangUp(socket);
        }
        client.pipe(upstream);
        upstream.pipe(client);
        return;
      } catch { /* the next one */ }
    }
    client.destroy();
  }
}

function connected(to: {host: string; port: number}): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({...to, allowHalfOpen: true, timeout: CONNECT_MS});
    const fail = (): void => {
      socket.destroy();
      reject(new CetusError('unavailable', `nobody listens at ${to.host}:${to.port}`));
    };
    socket.once('error', fail).once('timeout', fail).once('connect', () => {
      socket.off('error', fail).off('timeout', fail).setTimeout(0);
      resolve(socket);
    });
  });
}
