/**
 * A fleet of test hosts for a test file: `cetus fleet` as a person starts it, and what can happen to its parts. Whole hosts and endpoints have switches
 * (lib/main/fleet/switches.ts); agents and containerds die by themselves and are started again by their host.
 *
 *   const fleet = await startFleet({nodes: 4, endpoints: 2});
 *   await fleet.at(2).ok(['run', ...]);            // through the second endpoint; fleet.ok(...) through the balanced address
 *   await fleet.powerOff(3); await fleet.powerOn(3);
 *   await fleet.cut(3, {direction: 'in', from: 'endpoints'}); await fleet.mend(3);
 *   await fleet.killAgent(1); await fleet.killContainerd(2); await fleet.killEndpoint(1); await fleet.startEndpoint(1);
 *   expect(await fleet.destroy()).toEqual(NOTHING_LEFT);
 */
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import type {Inventory} from '../../lib/schema/agent';
import {type Finished, type RunOptions, TestDatacenter} from './cetus';
import {type FleetNode, processesOf} from './leaks';
import {openRegistries} from './loopback';
import {until} from './wait';

export interface FleetOptions { nodes?: number; endpoints?: number; /** Further arguments of `cetus fleet`. */ args?: string[] }
export interface Cut { direction?: 'in' | 'out' | 'both'; from?: 'all' | 'endpoints' | 'nodes' }

/** One endpoint of several, for a stock client. */
export interface Front {
  host: string;
  admin: string;
  docker(args: string[], options?: RunOptions): Promise<Finished>;
  ok(args: string[], options?: RunOptions): Promise<string>;
}

export class TestFleet extends TestDatacenter {
  constructor({nodes = 4, endpoints = 2, args = []}: FleetOptions = {}) {
    super(['--nodes', String(nodes), '--endpoints', String(endpoints), ...args], 'fleet');
  }

  get nodes(): FleetNode[] { return this.running.nodes!; }
  node(number: number): FleetNode { return this.nodes[number - 1]!; }
  dirOf(number: number): string { return this.nodeDir(number); }

  /** The endpoint of this number, from 1 on; without the balancer. */
  at(number: number): Front {
    const {listen, admin} = this.running.endpoints![number - 1]!;
    const env = {DOCKER_HOST: listen};
    return {
      host: listen, admin,
      docker: (args, options = {}) => this.docker(args, {...options, env: {...options.env, ...env}}),
      ok: (args, options = {}) => this.ok(args, {...options, env: {...options.env, ...env}}),
    };
  }

  /** Everything of a host at once and silently, its containers too. */
  powerOff(number: number): Promise<void> { return this.switch(`nodes/${number}/power-off`); }
  async powerOn(number: number): Promise<void> {
    await this.switch(`nodes/${number}/power-on`);
    await openRegistries(this.running);
  }
  /** SIGSTOP of all of it; what others hear of it is nothing. */
  pause(number: number): Promise<void> { return this.switch(`nodes/${number}/pause`); }
  resume(number: number): Promise<void> { return this.switch(`nodes/${number}/resume`); }
  /** In place of what was cut before. */
  cut(number: number, {direction = 'both', from = 'all'}: Cut = {}): Promise<void> { return this.switch(`nodes/${number}/cut?direction=${direction}&from=${from}`); }
  mend(number: number): Promise<void> { return this.switch(`nodes/${number}/mend`); }
  /** Stays down. */
  killEndpoint(number: number): Promise<void> { return this.switch(`endpoints/${number}/kill`); }
  startEndpoint(number: number): Promise<void> { return this.switch(`endpoints/${number}/start`); }

  /** Everything on a node that containers leave marks in, counted: compare with what was before. Beside the node's word stands the kernel's. */
  async marks(number: number): Promise<Record<string, number>> {
    const {name, prefix, namespace} = this.node(number);
    const dir = this.dirOf(number);
    const node = await this.admin<Inventory>(`/v1/nodes/${name}/inventory`);
    const inside = (...command: string[]): string => execFileSync('nsenter', [`--net=/run/netns/${namespace}`, ...command], {encoding: 'utf8', env: {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`}});
    const links = JSON.parse(inside('ip', '-j', 'link', 'show', 'type', 'veth')) as {master?: string}[];
    const map = inside('nft', 'list', 'map', 'ip', `cetus_${prefix}`, 'published');
    return {
      containers: node.containers.length, snapshots: node.snapshots.length, sandboxes: node.namespaces.length, publishedPorts: node.publishedPorts.length, volumes: node.volumes.length,
      specs: list(path.join(dir, 'agent', 'containers')).length, fifoSets: list(path.join(dir, 'agent', 'state', 'io')).length,
      bundles: list(path.join(dir, 'containerd', 'state', 'io.containerd.runtime.v2.task', 'cetus')).length,
      shims: processesOf(dir).filter((line) => /containerd-shim/.test(line)).length,
      mounts: fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => (line.split(' ')[4] ?? '').startsWith(`${dir}/`)).length,
      plugs: links.filter((link) => link.master?.startsWith('ce-')).length, publishedRules: map.includes('elements') ? 1 : 0,
      cgroups: ['/sys/fs/cgroup/memory', '/sys/fs/cgroup'].flatMap((root) => list(path.join(root, `cetus-${prefix}`))).filter((one) => /^[0-9a-f]{64}$/.test(one)).length,
    };
  }

  async allMarks(): Promise<Record<string, number>[]> {
    return Promise.all(this.nodes.map(({number}) => this.marks(number)));
  }

  /** Waits until the marks of every node are those of `before`; what nodes clear up themselves takes its moment. */
  async nothingLeaked(before: Record<string, number>[], timeoutMs = 60_000): Promise<void> {
    await until('nothing to be left on any node', async () => {
      const now = await this.allMarks();
      const more = now.flatMap((marks, n) => Object.keys(marks).filter((key) => marks[key] !== before[n]![key]).map((key) => `node-${n + 1} ${key}: ${marks[key]} instead of ${before[n]![key]}`));
      if (more.length) throw new Error(more.join(', '));
      return true;
    }, timeoutMs);
  }

  private switch(what: string): Promise<void> {
    return new Promise((resolve, reject) => {
      http.request({socketPath: path.join(this.dataDir, 'run', 'fleet.sock'), path: `/${what}`, method: 'POST', timeout: 120_000}, (res) => {
        let text = '';
        res.setEncoding('utf8').on('data', (c: string) => { text += c; }).on('end', () => (res.statusCode === 204 ? resolve() : reject(new Error(`${what}: ${res.statusCode} ${text}`))));
      }).on('error', reject).end();
    });
  }
}

export async function startFleet(options: FleetOptions = {}): Promise<TestFleet> {
  const fleet = new TestFleet(options);
  await fleet.up();
  return fleet;
}

function list(dir: string): string[] {
  try {
    return fs.readdirSync(dir);
  } catch {
    return [];
  }
}
