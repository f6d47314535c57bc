/**
 * A TCP port of an endpoint: each connection gets one to the container, and what one side says the other hears, no faster than it reads. The end of one direction is the
 * end of that direction only; a reset is passed on as a reset. Where nobody answers behind, the client is reset: it was told by no handshake that somebody would.
 */
import net from 'node:net';
import type {Duplex} from 'node:stream';
import type {Place, Target} from './desired';
import type {Shared} from './limits';
import type {Listener, Ways} from './listener';
import {proxyHeader} from './proxy-header';

const KEEP_ALIVE_MS = 60_000;
const BACKLOG = 4096;

interface Pair { client: net.Socket; upstream?: Duplex; target: Target }

export class TcpListener implements Listener {
  private readonly server: net.Server;
  private readonly pairs = new Set<Pair>();

  constructor(private readonly place: Place, public target: Target, private readonly ways: Ways, private readonly shared: Shared) {
    this.server = net.createServer({allowHalfOpen: true, pauseOnConnect: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS}, (client) => void this.serve(client));
    this.server.maxConnections = shared.limits.connectionsPerPort;
    this.server.on('drop', () => { shared.refused += 1; });
  }

  get connections(): number { return this.pairs.size; }

  open(failed: (err: Error) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen({host: this.place.address, port: this.place.port, exclusive: true, backlog: BACKLOG}, () => {
        this.server.off('error', reject);
        this.server.on('error', failed);
        resolve();
      });
    });
  }

  lead(target: Target): void {
    this.target = target;
    this.drain([...this.pairs]);
  }

  close(): void {
    this.server.close();
    this.drain([...this.pairs]);
  }

  end(): void {
    this.server.close();
    for (const pair of this.pairs) end(pair);
  }

  /** What their container said last may still be on its way. */
  private drain(pairs: Pair[]): void {
    if (pairs.length === 0) return;
    const timer = setTimeout(() => pairs.forEach(end), this.shared.limits.drainMs);
    timer.unref();
  }

  private async serve(client: net.Socket): Promise<void> {
    const pair: Pair = {client, target: this.target};
    client.on('error', () => end(pair));
    if (this.shared.connections >= this.shared.limits.connections) {
      this.shared.refused += 1;
      return reset(client);
    }
    this.shared.connections += 1;
    this.pairs.add(pair);
    client.once('close', () => {
      this.shared.connections -= 1;
      this.pairs.delete(pair);
    });
    let upstream: Duplex;
    try {
      upstream = await this.ways.tcp(pair.target);
    } catch {
      this.shared.refused += 1;
      return reset(client);
    }
    pair.upstream = upstream;
    upstream.on('error', () => end(pair));
    if (client.destroyed) return reset(upstream);
    const header = headerFor(pair);
    if (header) upstream.write(header);
    // One that closes with something left to say or to hear takes the other along; whose directions both ended has told the other so.
    client.once('close', () => { if (!isOver(client)) reset(upstream); });
    upstream.once('close', () => { if (!isOver(upstream)) reset(client); });
    client.pipe(upstream);
    upstream.pipe(client);
  }
}

function headerFor({client, target}: Pair): Buffer | undefined {
  const {proxyProtocol} = target.publication;
  const {remoteAddress, remotePort, localAddress, localPort} = client;
  if (!proxyProtocol || remoteAddress === undefined || remotePort === undefined || localAddress === undefined || localPort === undefined) return undefined;
  return proxyHeader(proxyProtocol, {protocol: 'tcp', from: {address: remoteAddress, port: remotePort}, to: {address: localAddress, port: localPort}});
}

const isOver = (stream: Duplex): boolean => stream.readableEnded && stream.writableFinished;

function end({client, upstream}: Pair): void {
  reset(client);
  if (upstream) reset(upstream);
}

/** Over TLS there is no way to say it but to hang up. */
function reset(stream: Duplex): void {
  if (stream.destroyed) return;
  if (stream instanceof net.Socket && !('encrypted' in stream)) stream.resetAndDestroy();
  else stream.destroy();
}
