/**
 * A UDP port of an endpoint: each client, by address and port, has a session with a socket of its own towards the container, so that what comes back there is that
 * client's. Sessions are bounded: where the table is full, the one that was quiet for longest makes room, unless it was quiet for less than a second; then the new
 * client's datagram is lost. Nothing is kept for somebody who reads too slowly.
 */
import dgram from 'node:dgram';
import {MAX_QUEUED_BYTES} from '../base/datagrams';
import type {Place, Target} from './desired';
import type {Shared} from './limits';
import type {Listener, Session, Ways} from './listener';
import {proxyHeader} from './proxy-header';

const MAKES_ROOM_MS = 1_000;
const SWEEP_MS = 5_000;
/** What arrives in a burst while this process is busy. The kernel allows as much as net.core.rmem_max. */
const RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024;

interface Client { session: Session; header: Buffer | undefined; lastMs: number; answered: boolean }

export class UdpListener implements Listener {
  private readonly socket = dgram.createSocket({type: 'udp4', reuseAddr: false});
  /** Who was heard last is last. */
  private readonly clients = new Map<string, Client>();
  private sweeper: NodeJS.Timeout | undefined;
  private closed = false;

  constructor(private readonly place: Place, public target: Target, private readonly ways: Ways, private readonly shared: Shared, private readonly nowMs: () => number) {}

  get connections(): number { return this.clients.size; }

  open(failed: (err: Error) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const {socket, place} = this;
      socket.once('error', (err) => {
        this.closed = true;
        socket.close();
        reject(err);
      });
      socket.bind({address: place.address, port: place.port, exclusive: true}, () => {
        socket.removeAllListeners('error').on('error', failed);
        try {
          socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES);
        } catch { /* then with what there is */ }
        socket.on('message', (datagram, from) => this.heard(datagram, from));
        this.sweeper = setInterval(() => this.sweep(), SWEEP_MS).unref();
        resolve();
      });
    });
  }

  lead(target: Target): void {
    this.target = target;
    this.forgetAll();
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.sweeper);
    this.forgetAll();
    this.socket.close();
  }

  end(): void { this.close(); }

  /** Those who have been quiet for too long; called by a timer, and by tests. */
  sweep(): void {
    const {answeredMs, unansweredMs} = this.shared.limits;
    const now = this.nowMs();
    for (const [key, client] of this.clients) if (now - client.lastMs > (client.answered ? answeredMs : unansweredMs)) this.forget(key, client);
  }

  private heard(datagram: Buffer, from: dgram.RemoteInfo): void {
    const key = `${from.address}:${from.port}`;
    const client = this.clients.get(key) ?? this.meet(key, from);
    if (!client) {
      this.shared.refused += 1;
      return;
    }
    client.lastMs = this.nowMs();
    this.clients.delete(key);
    this.clients.set(key, client);
    client.session.send(client.header ? Buffer.concat([client.header, datagram]) : datagram);
  }

  private meet(key: string, from: dgram.RemoteInfo): Client | undefined {
    const {limits} = this.shared;
    if (this.clients.size >= limits.sessionsPerPort || this.shared.sessions >= limits.sessions) {
      const [oldest] = this.clients;
      if (!oldest || this.nowMs() - oldest[1].lastMs < MAKES_ROOM_MS) return undefined;
      this.forget(...oldest);
    }
    const {proxyProtocol} = this.target.publication;
    // On the wildcard the kernel does not say at which address it was heard.
    const header = proxyProtocol && proxyHeader('v2', {protocol: 'udp', from, to: {address: this.place.address, port: this.place.port}});
    const client: Client = {header, lastMs: this.nowMs(), answered: false, session: undefined as never};
    this.shared.sessions += 1;
    this.clients.set(key, client);
    client.session = this.ways.udp(this.target, (datagram) => {
      client.answered = true;
      client.lastMs = this.nowMs();
      if (this.closed || this.socket.getSendQueueSize() > MAX_QUEUED_BYTES) this.shared.refused += 1;
      else this.socket.send(datagram, from.port, from.address, () => undefined);
    }, () => this.forget(key, client));
    // It may have failed at once.
    if (this.clients.get(key) !== client) client.session.close();
    return client;
  }

  private forget(key: string, client: Client): void {
    if (this.clients.get(key) !== client) return;
    this.clients.delete(key);
    this.shared.sessions -= 1;
    client.session?.close();
  }

  private forgetAll(): void {
    for (const [key, client] of this.clients) this.forget(key, client);
  }
}
