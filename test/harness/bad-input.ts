/**
 * What the files of bad input share: a datacenter that is spoken to through real sockets, and, as the last test of each file, that nothing is
 * left behind of all they sent: no object, no file, no descriptor, no memory, no word of a credential. To be called at the top of a file.
 */
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import {busyboxArchive} from './busybox';
import {NOTHING_LEFT, startCetus, type TestDatacenter} from './cetus';
import {whereKept} from './secrets';
import {until} from './wait';

export interface Answer { status: number; type: string; location?: string | undefined; body: string; message: string }
/** `began` is told of each piece of the answer's body. */
export interface Asked { body?: string | Buffer; headers?: Record<string, string>; timeoutMs?: number; signal?: AbortSignal; began?(): void }

/** Stands for a person's password: wherever it is kept, that is a fault. */
export const SECRET = 'hunter2-never-to-be-seen';
/** Idle connections between an endpoint and each agent, which come and go. */
const POOLED = 8;
const SETUP_TIMEOUT_MS = 240_000;

let dc: TestDatacenter;
let address: {host: string; port: number};
let before: Footprint;

export const datacenter = (): TestDatacenter => dc;
export const endpoint = (): {host: string; port: number} => address;
export const footprintBefore = (): Footprint => before;

/** A datacenter with busybox and a container `box` that runs, whose footprint is known before anything bad comes. `begin`: what may take its time. */
export function badInputSuite({begin, end}: {begin?(): Promise<void>; end?(): Promise<unknown>} = {}): void {
  beforeAll(async () => {
    dc = await startCetus();
    const {hostname, port} = new URL(dc.running.listen[0]);
    address = {host: hostname, port: Number(port)};
    await dc.ok(['load', '-i', await busyboxArchive()]);
    await dc.ok(['run', '-d', '--name', 'box', 'busybox', 'sleep', '10000']);
    // On every node: what it needs for that, an image first of all, it has from then on.
    for (const {name} of await dc.admin<{name: string}[]>('/v1/nodes')) await dc.ok(['run', '--rm', '-e', `constraint:node==${name}`, 'busybox', 'true']);
    await until('what made the world to be over', async () => {
      before = await footprint();
      return before.objects['locks'] === 0;
    });
    await begin?.();
  }, SETUP_TIMEOUT_MS);
  afterAll(async () => {
    await dc.docker(['rm', '-fv', 'box']);
    await end?.();
    expect(await dc.destroy()).toEqual(NOTHING_LEFT);
  }, SETUP_TIMEOUT_MS);
}

/** To be called behind the last test of a file. */
export function nothingIsLeft(): void {
  test('nothing is left, and nothing grows', async () => {
    const {objects, node, files} = before;
    await until('everything to be as it was', async () => {
      const now = await footprint();
      expect({objects: now.objects, node: now.node, files: now.files}).toEqual({objects, node, files});
      // More than 800 connections were opened above; what may stay are pools.
      const more = Object.entries(now.descriptors).map(([name, open]): [string, number] => [name, open - before.descriptors[name]]);
      expect(more.filter(([, count]) => count > POOLED * (dc.running.nodes?.length ?? 1))).toEqual([]);
      return true;
      // Over TCP a client that merely closed is known to be gone when its kernel has forgotten it, after a minute (lib/base/hang-up.ts).
    }, 240_000);
    // Garbage is memory, too, until it is collected.
    await until('memory to be what it was', async () => {
      const {rss} = await footprint();
      for (const name of Object.keys(rss)) expect(rss[name] - before.rss[name]).toBeLessThan(200 << 20);
      return true;
    });
    expect(await whereKept(dc, [SECRET])).toEqual([]);
  }, 330_000);
}

export interface Footprint { objects: Record<string, number>; node: Record<string, number>; files: string[]; descriptors: Record<string, number>; rss: Record<string, number> }

export async function footprint(): Promise<Footprint> {
  const count = async (bucket: string): Promise<number> => (await dc.admin<unknown[]>(`/v1/store/${bucket}?limit=1000`)).length;
  const buckets = ['containers', 'images', 'image_refs', 'networks', 'subnets', 'addresses', 'ports', 'volumes', 'locks'];
  const nodes = await dc.admin<{name: string}[]>('/v1/nodes');
  const inventories = await Promise.all(nodes.map(({name}) => dc.admin<Record<string, unknown[]>>(`/v1/nodes/${name}/inventory`)));
  const pids = dc.pids();
  const ours = (['endpoint', 'agent'] as const).flatMap((kind) => dc.parts(kind));
  return {
    objects: Object.fromEntries(await Promise.all(buckets.map(async (b) => [b, await count(b)] as const))),
    node: Object.fromEntries(Object.keys(inventories[0]!).map((kind) => [kind, inventories.flatMap((inventory) => inventory[kind]!).length])),
    files: dc.nodeDirs.flatMap((dir) => filesBelow(path.join(dir, 'containerd'))).filter((f) => /content\.v1\.content\/(ingest|blobs)\//.test(f)),
    descriptors: Object.fromEntries(ours.map((name) => [name, fs.readdirSync(`/proc/${pids[name]}/fd`).length])),
    rss: Object.fromEntries(ours.map((name) => [name, Number(fs.readFileSync(`/proc/${pids[name]}/statm`, 'utf8').split(' ')[1]) * 4096])),
  };
}

function filesBelow(directory: string): string[] {
  try {
    return fs.readdirSync(directory, {withFileTypes: true}).flatMap((e) => (e.isDirectory() ? filesBelow(path.join(directory, e.name)) : [path.join(directory, e.name)])).sort();
  } catch {
    return []; // gone while we looked
  }
}

export function ask(method: string, target: string, {body, headers, timeoutMs = 60_000, signal, began}: Asked = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const json = body !== undefined && headers === undefined ? {'content-type': 'application/json'} : {};
    const req = http.request({...address, method, path: target, agent: false, headers: {...json, ...headers}, timeout: timeoutMs, signal}, (res) => {
      let text = '';
      res.setEncoding('utf8').on('data', (c: string) => { text += c; began?.(); }).on('end', () => resolve({status: res.statusCode!, type: res.headers['content-type'] ?? '', location: res.headers.location, body: text, message: messageOf(text)})).on('error', reject);
    });
    req.on('timeout', () => req.destroy(new Error(`${method} ${target} was not answered`))).on('error', reject);
    req.end(body);
  });
}

function messageOf(text: string): string {
  try {
    return String((JSON.parse(text) as {message?: string}).message);
  } catch {
    return '';
  }
}

/** Everything that came for these bytes until the server ended or `quiet`. */
export function raw(bytes: string | Buffer, boundMs = 30_000): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = net.connect(address, () => socket.write(bytes));
    const timer = setTimeout(() => socket.destroy(), boundMs);
    socket.on('data', (c: Buffer) => { text += c.toString('latin1'); }).on('error', () => undefined).on('close', () => { clearTimeout(timer); resolve(text); });
  });
}

export const q = encodeURIComponent;
