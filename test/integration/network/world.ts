/**
 * A small world of network namespaces for the network tests, so that this machine's own tables are never touched:
 *
 *   internet 198.51.100.1 ---- host 198.51.100.2 ---- bridges ---- containers
 *
 * The internet knows no way to the containers' addresses. The networking under test runs in a process inside "host".
 */
import {type ChildProcess, execFileSync, spawn} from 'node:child_process';
import {existsSync, mkdtempSync, readdirSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {createInterface} from 'node:readline';
import {CetusError} from '../../../lib/base/errors';
import type {NodeNetworking} from '../../../lib/agent/network/network';
import type {NodeNetwork} from '../../../lib/schema/agent';
import type {NetworkAttachment, PublishedPort} from '../../../lib/schema/container';

const PEER = join(__dirname, 'peer.cjs');
const DRIVER = join(__dirname, 'driver.cjs');
const QUIET_MS = 700;

export const INTERNET = '198.51.100.1';
export const HOST = '198.51.100.2';

/** Programs that talk, each in a namespace. */
export class Peers {
  protected readonly servers: ChildProcess[] = [];

  path(ns: string): string { return `/run/netns/${ns}`; }

  async serve(netns: string, protocol: 'tcp' | 'udp', port: number, address?: string): Promise<ChildProcess> {
    const child = spawn('nsenter', [`--net=${netns}`, process.execPath, PEER, 'serve', protocol, String(port), ...(address ? [address] : [])], {stdio: ['ignore', 'pipe', 'ignore']});
    this.servers.push(child);
    await new Promise<void>((resolve, reject) => {
      child.stdout.once('data', () => resolve());
      child.once('exit', code => reject(new Error(`the server in ${netns} ended with ${code}`)));
    });
    return child;
  }

  /** Waits for an answer as long as a busy machine may take, and for a first packet to be sent again. */
  ask(netns: string, protocol: 'tcp' | 'udp', address: string, port: number, patienceMs = 10_000): string {
    return sh('nsenter', `--net=${netns}`, process.execPath, PEER, 'ask', protocol, address, String(port), String(patienceMs)).trim();
  }

  /** For what should not be answered: 'silence', which no wait proves, or what came within this one. */
  askInVain(netns: string, protocol: 'tcp' | 'udp', address: string, port: number): string {
    return this.ask(netns, protocol, address, port, QUIET_MS);
  }

  /** A UDP client that never pauses; `heard` counts its answers. */
  repeat(netns: string, address: string, port: number): {heard: number} {
    const child = spawn('nsenter', [`--net=${netns}`, process.execPath, PEER, 'repeat', address, String(port)], {stdio: ['ignore', 'pipe', 'ignore']});
    this.servers.push(child);
    const count = {heard: 0};
    child.stdout.on('data', () => { count.heard += 1; });
    return count;
  }

  async stop(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise(done => child.once('exit', done));
    child.kill('SIGKILL');
    await ended;
  }

  protected async stopAll(): Promise<void> {
    for (const server of this.servers) await this.stop(server);
  }
}

export class World extends Peers {
  readonly dir = mkdtempSync(join(tmpdir(), 'cetus-net-'));
  readonly tag = `t${process.pid.toString(36).slice(-3)}`;
  readonly host = `${this.tag}-host`;
  readonly internet = `${this.tag}-inet`;
  private drivers: Driver[] = [];

  constructor() {
    super();
    for (const ns of [this.host, this.internet]) {
      sh('ip', 'netns', 'add', ns);
      sh('ip', '-n', ns, 'link', 'set', 'lo', 'up');
    }
    sh('ip', '-n', this.host, 'link', 'add', 'uplink', 'mtu', '1400', 'type', 'veth', 'peer', 'name', 'downlink', 'netns', this.internet);
    for (const [ns, link, address] of [[this.host, 'uplink', HOST], [this.internet, 'downlink', INTERNET]] as const) {
      sh('ip', '-n', ns, 'addr', 'add', `${address}/24`, 'dev', link);
      sh('ip', '-n', ns, 'link', 'set', link, 'up');
    }
    sh('ip', '-n', this.host, 'route', 'add', 'default', 'via', INTERNET);
  }

  async networking(options: object = {}): Promise<Driver> {
    const driver = new Driver(this.path(this.host), {stateDir: join(this.dir, 'state'), prefix: this.tag, ...options});
    this.drivers.push(driver);
    await driver.ready;
    return driver;
  }

  inHost(...command: string[]): string { return sh('nsenter', `--net=${this.path(this.host)}`, ...command); }

  /** What the instance left in the kernel and on disk. */
  leftovers(): {namespaces: string[]; interfaces: string[]; tables: string[]; records: string[]} {
    const links = JSON.parse(this.inHost('ip', '-j', 'link')) as {ifname: string}[];
    return {
      namespaces: readdirSync('/run/netns').filter(name => name.startsWith(`cetus-${this.tag}-`)),
      interfaces: links.map(l => l.ifname).filter(name => !['lo', 'uplink'].includes(name)),
      tables: this.inHost('nft', 'list', 'tables').split('\n').filter(line => line.includes('cetus')),
      records: ['networks', 'sandboxes'].flatMap(kind => existsSync(join(this.dir, 'state', kind)) ? readdirSync(join(this.dir, 'state', kind)) : []),
    };
  }

  async destroy(): Promise<void> {
    await this.stopAll();
    for (const driver of this.drivers) await driver.kill();
    for (const name of readdirSync('/run/netns')) if (name.startsWith(`cetus-${this.tag}-`) || name === this.host || name === this.internet) sh('ip', 'netns', 'del', name);
    rmSync(this.dir, {recursive: true});
  }
}

export interface Driver extends Pick<NodeNetworking, keyof NodeNetworking> { purge(): Promise<void>; /** Programs that the driver has started so far. */ toolsStarted(): Promise<number> }
/** NodeNetworking whose calls run in the driver's process. */
export class Driver {
  readonly ready: Promise<void>;
  /** How long each createSandbox took inside the driver. */
  readonly sandboxMs: number[] = [];
  private readonly child: ChildProcess;
  private readonly pending = new Map<number, {method: string; resolve(value: unknown): void; reject(err: Error): void}>();
  private last = 0;

  constructor(hostPath: string, options: object) {
    this.child = spawn('nsenter', [`--net=${hostPath}`, process.execPath, DRIVER, JSON.stringify(options)], {stdio: ['pipe', 'pipe', 'inherit']});
    this.child.stdin!.on('error', () => undefined);
    let ready!: () => void;
    this.ready = new Promise(resolve => { ready = resolve; });
    createInterface({input: this.child.stdout!}).on('line', line => {
      const message = JSON.parse(line) as {ready?: true; id: number; result?: unknown; ms: number; error?: {kind: 'internal'; message: string}};
      if (message.ready) return ready();
      const call = this.pending.get(message.id)!;
      this.pending.delete(message.id);
      if (message.error) return call.reject(new CetusError(message.error.kind, message.error.message));
      if (call.method === 'createSandbox') this.sandboxMs.push(message.ms);
      call.resolve(message.result);
    });
    for (const method of ['open', 'ensureNetwork', 'removeNetwork', 'applyTable', 'createSandbox', 'connect', 'disconnect', 'removeSandbox', 'createEmptySandbox', 'sandboxes', 'bridges', 'resolvConf', 'publishedPorts', 'publishedAddress', 'close', 'purge', 'toolsStarted'])
      Object.defineProperty(this, method, {value: (...args: unknown[]) => this.call(method, args)});
  }

  /** As kill -9 does: nothing is tidied up. */
  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise(done => this.child.once('exit', done));
    this.child.kill('SIGKILL');
    await ended;
  }

  private call(method: string, args: unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.pending.set(this.last += 1, {method, resolve, reject});
      this.child.stdin!.write(`${JSON.stringify({id: this.last, method, args})}\n`);
    });
  }
}

export function sh(command: string, ...args: string[]): string {
  return execFileSync(command, args, {encoding: 'utf8', timeout: 60_000});
}

export function aNetwork(tag: string, n: number, part: Partial<NodeNetwork> = {}): NodeNetwork {
  return {id: `net${n}`, account: 'default', name: `net-${n}`, bridgeName: `b${tag}${n}`, subnet: `172.3${n}.0.0/16`, gateway: `172.3${n}.0.1`, internal: false, options: {}, ...part};
}

export function anAttachment(network: NodeNetwork, host: number, part: Partial<NetworkAttachment> = {}): NetworkAttachment {
  const address = network.gateway.replace(/\.1$/, `.${host}`);
  return {
    networkId: network.id, networkName: network.name, endpointId: `e${host}`, address, prefixLength: 16, gateway: network.internal ? '' : network.gateway,
    mac: `02:42:${address.split('.').map(b => Number(b).toString(16).padStart(2, '0')).join(':')}`, aliases: [], isDefaultRoute: !network.internal, internal: network.internal, ...part,
  };
}

export function aSandbox(containerId: string, networks: NodeNetwork[], host: number, ports: Partial<PublishedPort>[] = []) {
  return {
    containerId, hostname: containerId, containerName: containerId, networks, attachments: networks.map((n, i) => anAttachment(n, host, i > 0 ? {isDefaultRoute: false} : {})),
    ports: ports.map((p): PublishedPort => ({protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 8080, ...p})),
  };
}
