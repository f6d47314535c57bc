/**
 * A TCP proxy on a port of its own that can take the connections through it apart: cut them, or hold what flows in one direction or in both, as a
 * network does that loses every packet (nothing is lost for good: TCP sends it again, so what was held flows on after `restore`, late).
 */
import net from 'node:net';
import {once} from 'node:events';

/** Questions flow from who connected; answers come back. */
export type Direction = 'questions' | 'answers';

interface Pair {
  client: net.Socket;
  server: net.Socket;
  held: Record<Direction, Buffer[]>;
}

export class Cut {
  private readonly pairs = new Set<Pair>();
  private readonly holding = new Set<Direction>();
  private refusing = false;
  /** Connections that were made so far, for tests that wait for one more. */
  accepted = 0;

  private constructor(private readonly listener: net.Server, private target: {host: string; port: number}) {
    listener.on('connection', (client) => this.join(client));
  }

  static async open(target: {host: string; port: number}, host = '127.0.0.1'): Promise<Cut> {
    const listener = net.createServer();
    const cut = new Cut(listener, target);
    listener.listen(0, host);
    await once(listener, 'listening');
    return cut;
  }

  get host(): string { return (this.listener.address() as net.AddressInfo).address; }
  get port(): number { return (this.listener.address() as net.AddressInfo).port; }
  get address(): string { return `${this.host}:${this.port}`; }
  /** Open connections through it. */
  get open(): number { return this.pairs.size; }

  /** Ends every connection with a reset; who comes afterwards is reset as well, until `restore`. */
  cut(): void {
    this.refusing = true;
    this.sever();
  }

  /** Ends every connection with a reset; new ones are taken. What was held for them is lost. */
  sever(): void {
    for (const {client, server} of this.pairs) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
  }

  /** From now on nothing flows in this direction, of connections that are open and of new ones. */
  hold(...directions: Direction[]): void {
    for (const direction of directions) this.holding.add(direction);
  }

  /** Bytes that have arrived here and wait. */
  heldBytes(direction: Direction): number {
    return [...this.pairs].reduce((sum, pair) => sum + pair.held[direction].reduce((length, bytes) => length + bytes.length, 0), 0);
  }

  /** Everything flows again, first what was held. */
  restore(): void {
    this.refusing = false;
    this.holding.clear();
    for (const pair of this.pairs) {
      for (const bytes of pair.held.questions.splice(0)) pair.server.write(bytes);
      for (const bytes of pair.held.answers.splice(0)) pair.client.write(bytes);
      // Who has gone meanwhile is gone behind what it had sent.
      if (pair.client.readableEnded || pair.client.destroyed) pair.server.end();
      if (pair.server.readableEnded || pair.server.destroyed) pair.client.end();
    }
  }

  /** Where new connections lead from now on. */
  pointAt(target: {host: string; port: number}): void {
    this.target = target;
  }

  async close(): Promise<void> {
    this.listener.close();
    this.sever();
    await once(this.listener, 'close');
  }

  private join(client: net.Socket): void {
    client.on('error', () => undefined);
    if (this.refusing) {
      client.resetAndDestroy();
      return;
    }
    this.accepted += 1;
    const server = net.connect(this.target);
    const pair: Pair = {client, server, held: {questions: [], answers: []}};
    this.pairs.add(pair);
    server.on('error', () => client.resetAndDestroy());
    for (const socket of [client, server]) socket.setNoDelay(true);
    this.flow(pair, 'questions', client, server);
    this.flow(pair, 'answers', server, client);
  }

  private flow(pair: Pair, direction: Direction, from: net.Socket, to: net.Socket): void {
    from.on('data', (bytes: Buffer) => {
      if (this.holding.has(direction)) pair.held[direction].push(bytes);
      else if (!to.write(bytes)) {
        from.pause();
        to.once('drain', () => from.resume());
      }
    });
    // An end is held back as bytes are: it too is a packet. Whoever holds ends the pair by cut, sever or close.
    from.on('end', () => { if (!this.holding.has(direction)) to.end(); });
    from.on('close', () => {
      if (!this.holding.has(direction)) to.destroy();
      if (pair.client.destroyed && pair.server.destroyed) this.pairs.delete(pair);
    });
  }
}
