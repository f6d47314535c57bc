/**
 * /var/run/docker.sock of containers: a unix socket per container on this node whose connections the control plane answers as the container's
 * account. Guarantees: who speaks is known by the socket, never by what is sent; a running container's socket answers again after the agent
 * has been started anew; nothing is left of it when the container has ended.
 *
 * A bound socket file is an inode, and one whose listener is gone is dead for ever, though a container has it mounted. So what containers get is
 * a slave of a shared mount of the first socket, and the next life of the agent mounts its own socket on top of it: the kernel carries
 * that into the container. One layer at most: the former one is taken off first. Called by Volumes.
 */
import {existsSync} from 'node:fs';
import {chmod, mkdir, readdir, rm} from 'node:fs/promises';
import {createServer, type Server, type Socket} from 'node:net';
import {join as joinPath} from 'node:path';
import type {Duplex} from 'node:stream';
import {type Clock, systemClock} from '../../base/clock';
import {asCetusError, CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {bindFile, mountsOn, unmountTop} from '../mounts';
import {Turns} from '../turns';
import {join} from './join';

/** A container that opens more is let wait by the kernel. */
const MAX_CONNECTIONS = 1_000;
/** An endpoint that is being started again is waited for. */
const DIAL_TRIES_MS = [0, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400];

export interface DockerSocketsOptions {
  dataDir: string;
  log: Log;
  /** A raw connection to the Docker API, as the account of the container. Undefined: this agent has no control plane. */
  dial?: (containerId: string) => Promise<Duplex>;
  clock?: Clock;
}

export class DockerSockets {
  private readonly servers = new Map<string, {server: Server; clients: Set<Socket>}>();
  private readonly turns = new Turns();
  private readonly clock: Clock;

  constructor(private readonly options: DockerSocketsOptions) {
    this.clock = options.clock ?? systemClock;
  }

  private get dir(): string {
    return joinPath(this.options.dataDir, 'docker');
  }

  /** Short, since a socket's path has 108 bytes. */
  private path(containerId: string): string {
    return joinPath(this.dir, `${containerId.slice(0, 16)}.sock`);
  }

  /** For a start: a new socket, mounted on itself so that a later one can be put there. Answers what is to be bound, with propagation rslave. */
  async open(containerId: string): Promise<string> {
    return await this.turns.hold(containerId, async () => {
      if (!this.options.dial) throw new CetusError('unavailable', 'this node has no control plane that could answer a Docker socket');
      const path = this.path(containerId);
      await mkdir(this.dir, {recursive: true, mode: 0o700});
      await this.remove(containerId);
      await this.listen(containerId, path);
      await bindFile(path, path);
      return path;
    });
  }

  /** The container has ended. Repeatable. */
  async release(containerId: string): Promise<void> {
    // Synchronous, since nearly always there is none.
    if (!existsSync(this.path(containerId))) return;
    await this.turns.hold(containerId, () => this.remove(containerId));
  }

  /** At the agent's start: sockets of containers that may run answer again; what others have left goes. */
  async recover(running: readonly string[]): Promise<void> {
    const names = await readdir(this.dir).catch((err: NodeJS.ErrnoException) => {
      if (err.code === 'ENOENT') return [];
      throw err;
    });
    const owners = new Map(running.map((id) => [this.path(id), id]));
    const layers = mountsOn((path) => path.startsWith(`${this.dir}/`));
    for (const name of names) {
      const path = joinPath(this.dir, name);
      const owner = owners.get(path);
      try {
        if (owner !== undefined && layers.has(path)) await this.turns.hold(owner, () => this.takeUp(owner, path, layers.get(path)!));
        else await this.takeAway(path, layers.get(path) ?? 0);
      } catch (err) {
        this.options.log.error({err, path}, 'a Docker socket could not be taken up again');
      }
    }
  }

  /** The agent goes; the mounts stay for its next life. */
  async close(): Promise<void> {
    await Promise.all([...this.servers.keys()].map((id) => this.shut(id)));
  }

  private async takeUp(containerId: string, path: string, layers: number): Promise<void> {
    const fresh = `${path}.new`;
    await rm(fresh, {force: true});
    await this.listen(containerId, fresh);
    for (let n = layers; n > 1; n -= 1) await unmountTop(path);
    await bindFile(fresh, path);
    // The mount is what is connected to.
    await rm(fresh, {force: true});
  }

  private async remove(containerId: string): Promise<void> {
    await this.shut(containerId);
    const path = this.path(containerId);
    await this.takeAway(path, mountsOn((mounted) => mounted === path).get(path) ?? 0);
  }

  private async takeAway(path: string, layers: number): Promise<void> {
    for (let n = layers; n > 0; n -= 1) await unmountTop(path);
    await rm(path, {force: true});
  }

  private async listen(containerId: string, path: string): Promise<void> {
    const clients = new Set<Socket>();
    const server = createServer({allowHalfOpen: true, pauseOnConnect: true}, (socket) => {
      clients.add(socket);
      socket.once('close', () => clients.delete(socket));
      void this.serve(containerId, socket);
    });
    server.maxConnections = MAX_CONNECTIONS;
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen({path}, () => resolve()));
    server.on('error', (err) => this.options.log.error({err, containerId}, 'a container\'s Docker socket failed'));
    this.servers.set(containerId, {server, clients});
    await chmod(path, 0o660);
  }

  private async shut(containerId: string): Promise<void> {
    const open = this.servers.get(containerId);
    if (!open) return;
    this.servers.delete(containerId);
    const closed = new Promise<void>((resolve) => open.server.close(() => resolve()));
    for (const client of open.clients) client.destroy();
    await closed;
  }

  private async serve(containerId: string, client: Socket): Promise<void> {
    client.on('error', () => undefined);
    try {
      const upstream = await this.dial(containerId, client);
      if (!upstream) return;
      if (client.destroyed) return void upstream.destroy();
      join(client, upstream);
    } catch (err) {
      this.options.log.warn({err, containerId}, 'a connection of a container to the Docker API could not be made');
      client.end(refusal(asCetusError(err).shown));
      client.resume();
    }
  }

  private async dial(containerId: string, client: Socket): Promise<Duplex | undefined> {
    let last: unknown;
    for (const pauseMs of DIAL_TRIES_MS) {
      if (pauseMs) await this.clock.sleep(pauseMs);
      if (client.destroyed || !this.servers.has(containerId)) return undefined;
      try {
        return await this.options.dial!(containerId);
      } catch (err) {
        last = err;
        if (asCetusError(err).kind !== 'unavailable') break;
      }
    }
    throw last;
  }
}

function refusal(message: string): string {
  const body = JSON.stringify({message});
  return `HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}
