/** What must be true of a datacenter after something in it died, whatever it was: jobs end, nothing is left over, bystanders never noticed. */
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import type {Inventory} from '../../lib/schema/agent';
import {type TestDatacenter} from './cetus';
import {processesOf} from './leaks';
import {until} from './wait';

interface Row { key: string; value: Record<string, unknown> }

const ENDED = ['succeeded', 'failed', 'canceled'];

export class Aftermath {
  constructor(private readonly dc: TestDatacenter) {}

  /** GET of the operator's API. */
  admin<T>(url: string): Promise<T> {
    return new Promise((resolve, reject) => {
      http.get({socketPath: this.dc.running.admin.replace('unix://', ''), path: url, timeout: 10_000}, (res) => {
        let text = '';
        res.setEncoding('utf8').on('data', (c: string) => { text += c; })
          .on('end', () => (res.statusCode === 200 ? resolve(JSON.parse(text) as T) : reject(new Error(`${url}: ${res.statusCode} ${text}`))));
      }).on('error', reject);
    });
  }

  objects(bucket: string): Promise<Row[]> {
    return this.admin(`/v1/store/${bucket}?limit=1000`);
  }

  /** A client is answered, and every node takes orders. */
  async serves(): Promise<void> {
    await until('the datacenter to serve', async () => {
      if ((await this.dc.docker(['ps', '-q'], {timeoutMs: 10_000})).status !== 0) return false;
      return (await this.inventories()).every(({containers}) => containers.length >= 0);
    }, 40_000);
  }

  /** Of each node. */
  async inventories(): Promise<Inventory[]> {
    return Promise.all((await this.objects('nodes')).map(({value}) => this.admin<Inventory>(`/v1/nodes/${String(value['name'])}/inventory`)));
  }

  async jobsEnded(): Promise<void> {
    await until('every job to end', async () => {
      const open = (await this.objects('jobs')).filter((j) => !ENDED.includes(String(j.value['execution'])));
      if (open.length) throw new Error(JSON.stringify(open.map((j) => ({id: j.key, workflow: j.value['workflow'], execution: j.value['execution'], error: j.value['error']}))));
      return true;
    }, 60_000);
  }

  /** Everything that containers leave marks in, counted: in the store, on the nodes, in the kernel. */
  async marks(): Promise<Record<string, number>> {
    const {dataDir, nodeDirs} = this.dc;
    const [containers, addresses, ports, locks, reservations, volumes] = await Promise.all(['containers', 'addresses', 'ports', 'locks', 'reservations', 'volumes'].map((b) => this.objects(b)));
    const nodes = await this.inventories();
    const machine = this.dc.traces();
    const onNodes = (kind: Exclude<keyof Inventory, 'lacking'>): number => nodes.reduce((sum, node) => sum + node[kind].length, 0);
    const files = (...below: string[]): number => nodeDirs.flatMap((dir) => list(path.join(dir, ...below))).length;
    return {
      containers: containers!.length, addresses: addresses!.length, ports: ports!.length, locks: locks!.length, volumes: volumes!.length,
      reserved: reservations!.flatMap((r) => Object.keys(r.value['containers'] as object)).length,
      onNode: onNodes('containers'), snapshots: onNodes('snapshots'), sandboxes: onNodes('namespaces'), published: onNodes('publishedPorts'), nodeVolumes: onNodes('volumes'),
      specs: files('agent', 'containers'), bundles: files('containerd', 'state', 'io.containerd.runtime.v2.task', 'cetus'), runc: files('agent', 'state', 'runc', 'cetus'), fifoSets: files('agent', 'state', 'io'),
      shims: processesOf(dataDir).filter((line) => /containerd-shim/.test(line)).length,
      idleKeepers: processesOf(dataDir).filter((line) => /^\d+ sleep/.test(line) && holdsNothing(line.split(' ')[0]!)).length,
      mounts: machine.mounts.length, links: machine.links.length, namespaces: machine.namespaces.length, tables: machine.tables.length, cgroups: machine.cgroups.length,
    };
  }

  /** The marks to compare with later: of a datacenter that has finished what it was doing, its locks given back. */
  async marksAtRest(): Promise<Record<string, number>> {
    await this.jobsEnded();
    return until('the last lock to be given back', async () => {
      const now = await this.marks();
      return now['locks'] === 0 && now;
    });
  }

  /** Waits until the marks are those of `before`; what the node itself clears up takes its moment. */
  async nothingLeaked(before: Record<string, number>): Promise<void> {
    await this.jobsEnded();
    await until('nothing to be left', async () => {
      const now = await this.marks();
      const more = Object.keys(now).filter((key) => now[key] !== before[key]).map((key) => `${key}: ${now[key]} instead of ${before[key]}`);
      if (more.length) throw new Error(more.join(', '));
      return true;
    }, 60_000);
  }
}

/** The first line of a container that counts which is not one more than the line before; -1 where all is well. */
export function gap(log: string): number {
  return log.split('\n').map(Number).findIndex((n, at) => n !== at);
}

/** Where lines are missing from such a container's log with timestamps: when the last line before came and the first one after it, in milliseconds since the epoch. */
export function losses(log: string[]): {afterMs: number; beforeMs: number}[] {
  const entries = log.map((line) => line.split(' ')).map(([stamp, n]) => ({ms: Date.parse(stamp!), n: Number(n)}));
  expect(entries[0]!.n).toBe(0);
  return entries.slice(1).flatMap(({ms, n}, i) => {
    const before = entries[i]!;
    // Doubled or out of order is never right.
    expect(n).toBeGreaterThan(before.n);
    return n === before.n + 1 ? [] : [{afterMs: before.ms, beforeMs: ms}];
  });
}

function list(dir: string): string[] {
  try {
    return fs.readdirSync(dir);
  } catch {
    return [];
  }
}

/** All files that the process has open are removed: what it was kept for is gone. */
function holdsNothing(pid: string): boolean {
  try {
    return fs.readdirSync(`/proc/${pid}/fd`).every((fd) => fs.readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith(' (deleted)'));
  } catch {
    return false; // it has ended meanwhile
  }
}
