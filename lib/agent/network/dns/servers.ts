/**
 * DNS on the bridges: for each network with names a UDP and a TCP socket at its gateway's address, at any port: the rules lead the questions
 * there, and port 53 of the machine is nobody's but its own. Who asks is known by the address that the question comes from. What is not a
 * name of the container's networks goes to its own servers, or the node's. Bounded, in all and for each asker, so that one whose servers are
 * silent takes no answer from another: questions under way, connections, the time of each. The agent's death leaves containers without names
 * until the next one listens; packets need nobody.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import {CetusError} from '../../../base/errors';
import type {Log} from '../../../base/log';
import {answerTo, type NetworkNames, refusal, turnAway} from './answer';
import {ask, framed} from './forward';

/** What a container sees: its networks' names, and who answers the rest; no servers where it has no way outwards. */
export interface Scope { networks: NetworkNames[]; servers: string[] }
export type ScopeOf = (networkId: string, address: string) => Promise<Scope | undefined>;

const MAX_UNDER_WAY = 2000;
const MAX_UNDER_WAY_EACH = 100;
const MAX_CONNECTIONS = 200;
const MAX_CONNECTIONS_EACH = 20;
const IDLE_MS = 10_000;
const MAX_MESSAGE = 65_535;

export interface Ports { udp: number; tcp: number }
interface Listening { udp: dgram.Socket; tcp: net.Server; connections: Set<net.Socket>; ports: Promise<Ports> }

export class DnsServers {
  private readonly listening = new Map<string, Listening>();
  private readonly closed = new AbortController();
  private readonly underWay = new Share(MAX_UNDER_WAY, MAX_UNDER_WAY_EACH);
  private readonly conversing = new Share(Infinity, MAX_CONNECTIONS_EACH);

  /** `pass` asks others; a test puts itself in their place. */
  constructor(private readonly scopeOf: ScopeOf, private readonly log: Log, private readonly pass: typeof ask = ask) {}

  /** Repeatable. Resolves to the ports where the network's questions are answered. */
  async serve(networkId: string, gateway: string): Promise<Ports> {
    const known = this.listening.get(networkId);
    if (known) return known.ports;
    const connections = new Set<net.Socket>();
    const udp = dgram.createSocket('udp4');
    const tcp = net.createServer({noDelay: true}, (socket) => this.converse(networkId, socket, connections));
    tcp.maxConnections = MAX_CONNECTIONS;
    const ports = Promise.all([bound(udp, (done) => udp.bind({address: gateway, port: 0}, done)), bound(tcp, (done) => tcp.listen({host: gateway, port: 0}, done))])
      .then(() => ({udp: udp.address().port, tcp: (tcp.address() as net.AddressInfo).port}));
    const listening: Listening = {udp, tcp, connections, ports};
    this.listening.set(networkId, listening);
    try {
      await ports;
    } catch (err) {
      this.listening.delete(networkId);
      silence(listening);
      throw new CetusError('internal', `answer DNS at ${gateway}`, {cause: err});
    }
    udp.on('error', (err) => this.log.warn({err, networkId}, 'a DNS socket failed'));
    tcp.on('error', (err) => this.log.warn({err, networkId}, 'a DNS socket failed'));
    udp.on('message', (message, from) => {
      void this.answer(networkId, from.address, message, true).then((answer) => {
        if (answer && this.listening.get(networkId) === listening) udp.send(answer, from.port, from.address, () => undefined);
      });
    });
    return ports;
  }

  stop(networkId: string): void {
    const found = this.listening.get(networkId);
    this.listening.delete(networkId);
    if (found) silence(found);
  }

  close(): void {
    this.closed.abort();
    for (const networkId of [...this.listening.keys()]) this.stop(networkId);
  }

  /** undefined: nothing is to be said. Never rejects. */
  private async answer(networkId: string, address: string, message: Buffer, udp: boolean): Promise<Buffer | undefined> {
    try {
      const scope = await this.scopeOf(networkId, address);
      if (!scope) return turnAway(message);
      const verdict = answerTo(message, scope.networks, udp, Math.random);
      switch (verdict.kind) {
        case 'drop': return undefined;
        case 'answer': return verdict.bytes;
        case 'forward': {
          const forwarded = this.underWay.during(askerOf(networkId, address), () => this.pass(message, verdict.query, scope.servers, udp, this.closed.signal));
          return await forwarded ?? refusal(verdict.query, 'serverFailure');
        }
      }
    } catch (err) {
      this.log.warn({err, networkId}, 'a question for a name could not be answered');
      return undefined;
    }
  }

  /** One question after the other; a peer that sends more than it reads answers of is held back by TCP. */
  private converse(networkId: string, socket: net.Socket, connections: Set<net.Socket>): void {
    const address = (socket.remoteAddress ?? '').replace(/^::ffff:/, '');
    socket.on('error', () => socket.destroy());
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    const taken = this.conversing.during(askerOf(networkId, address), () => closed);
    if (!taken) return void socket.destroy();
    connections.add(socket);
    void taken.then(() => connections.delete(socket));
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    let pending: Buffer = Buffer.alloc(0);
    let busy = false;
    const next = (): void => {
      if (busy || pending.length < 2 || pending.length < 2 + pending.readUInt16BE(0)) return;
      const message = pending.subarray(2, 2 + pending.readUInt16BE(0));
      pending = pending.subarray(2 + message.length);
      busy = true;
      socket.pause();
      void this.answer(networkId, address, message, false).then((answer) => {
        if (!answer || socket.destroyed) return void socket.destroy();
        socket.write(framed(answer), () => {
          busy = false;
          socket.resume();
          next();
        });
      });
    };
    socket.on('data', (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      if (pending.length > 2 * MAX_MESSAGE) return void socket.destroy();
      next();
    });
  }
}

const askerOf = (networkId: string, address: string): string => `${networkId} ${address}`;

/** So many at once, and so many of them by one. */
class Share {
  private readonly each = new Map<string, number>();
  private all = 0;

  constructor(private readonly most: number, private readonly mostEach: number) {}

  /** undefined: there is no more room. */
  during<T>(who: string, work: () => Promise<T>): Promise<T> | undefined {
    const mine = this.each.get(who) ?? 0;
    if (this.all >= this.most || mine >= this.mostEach) return undefined;
    this.all += 1;
    this.each.set(who, mine + 1);
    return work().finally(() => {
      this.all -= 1;
      const left = this.each.get(who)! - 1;
      if (left) this.each.set(who, left);
      else this.each.delete(who);
    });
  }
}

function silence({udp, tcp, connections}: Listening): void {
  try { udp.close(); } catch { /* it was never bound */ }
  tcp.close();
  for (const socket of connections) socket.destroy();
}

function bound(socket: dgram.Socket | net.Server, bind: (done: () => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    bind(() => {
      socket.off('error', reject);
      resolve();
    });
  });
}
