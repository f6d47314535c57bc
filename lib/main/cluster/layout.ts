/**
 * Where the parts of a cluster on this one machine lie and listen: DIR/run/cluster.json, made once and extended where more peers are wanted. Ports are chosen
 * when a part is first wanted and kept, because state, history and clients know them. Everything listens on loopback only.
 */
import {randomBytes, randomInt} from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import {clusterStore} from '../store';
import type {ClusterStore, SitterConfig} from '../config';

export interface ZooKeeperLayout { id: number; clientPort: number; quorumPort: number; electionPort: number }
export interface PeerLayout { id: string; port: number; statusPort: number }

export interface ClusterLayout {
  /** For `cetus db`. */
  zookeeper: {servers: string; path: string};
  zookeepers: ZooKeeperLayout[];
  peers: PeerLayout[];
}

export const HOST = '127.0.0.1';
const PATH = '/cetus/db';
const ZOOKEEPERS = 3;
/** Below the ports that the kernel gives to clients: those are taken by chance. */
const [FIRST_PORT, LAST_PORT] = [15_000, 32_000];
const SESSION_TIMEOUT_MS = 4000;

const fileOf = (dir: string): string => path.join(dir, 'run', 'cluster.json');
const importedFile = (dir: string): string => path.join(dir, 'cluster', 'imported');
export const markImported = (dir: string): void => fs.writeFileSync(importedFile(dir), '');
export const passwordFile = (dir: string, name: 'client' | 'replication'): string => path.join(dir, 'cluster', `${name}.password`);
export const zookeeperDir = (dir: string, id: number): string => path.join(dir, 'cluster', `zookeeper-${id}`);
export const peerDir = (dir: string, id: string): string => path.join(dir, 'cluster', id);
export const sitterFile = (dir: string, id: string): string => path.join(dir, 'run', `sitter-${id}.json`);

/** Peers that were there stay, whatever number is wanted. */
export async function loadLayout(dir: string, peers: number): Promise<ClusterLayout> {
  fs.mkdirSync(path.join(dir, 'cluster'), {recursive: true, mode: 0o711});
  for (const name of ['client', 'replication'] as const)
    if (!fs.existsSync(passwordFile(dir, name))) writeWhole(passwordFile(dir, name), `${randomBytes(24).toString('base64url')}\n`);
  const known = readLayout(dir);
  const used = new Set(known ? [...known.zookeepers.flatMap((z) => [z.clientPort, z.quorumPort, z.electionPort]), ...known.peers.flatMap((p) => [p.port, p.statusPort])] : []);
  const layout: ClusterLayout = known ?? {zookeeper: {servers: '', path: PATH}, zookeepers: [], peers: []};
  while (layout.zookeepers.length < ZOOKEEPERS)
    layout.zookeepers.push({id: layout.zookeepers.length + 1, clientPort: await freePort(used), quorumPort: await freePort(used), electionPort: await freePort(used)});
  while (layout.peers.length < peers) layout.peers.push({id: `db-${layout.peers.length + 1}`, port: await freePort(used), statusPort: await freePort(used)});
  layout.zookeeper.servers = layout.zookeepers.map(({clientPort}) => `${HOST}:${clientPort}`).join(',');
  writeWhole(fileOf(dir), `${JSON.stringify(layout, null, 2)}\n`);
  return layout;
}

export function readLayout(dir: string): ClusterLayout | undefined {
  try {
    return JSON.parse(fs.readFileSync(fileOf(dir), 'utf8')) as ClusterLayout;
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CetusError('internal', `${fileOf(dir)} cannot be read; the cluster's peers are known by what it says`, {cause: err});
  }
}

export const storeOfLayout = (dir: string, layout: ClusterLayout): ClusterStore => clusterStore(layout.zookeeper, passwordFile(dir, 'client'));

/** Writes the peer's configuration and answers where. */
export function writeSitterConfig(dir: string, layout: ClusterLayout, peer: PeerLayout, logLevel: string): string {
  const config: SitterConfig = {
    id: peer.id, host: HOST, port: peer.port, statusListen: `${HOST}:${peer.statusPort}`, dataDir: peerDir(dir, peer.id),
    zookeeper: {...layout.zookeeper, sessionTimeoutMs: SESSION_TIMEOUT_MS}, passwordFiles: {client: passwordFile(dir, 'client'), replication: passwordFile(dir, 'replication')},
    // One alone has to accept its writes; where there are more this means nothing.
    oneNodeWriteMode: layout.peers.length === 1, settings: {}, logLevel,
  };
  writeWhole(sitterFile(dir, peer.id), JSON.stringify(config, null, 2));
  return sitterFile(dir, peer.id);
}

/** Sessions may be as short as two ticks; a sitter's is eight. */
export function zooCfg(dir: string, layout: ClusterLayout, own: ZooKeeperLayout): string {
  return [
    'tickTime=500', 'initLimit=40', 'syncLimit=10', `dataDir=${path.join(zookeeperDir(dir, own.id), 'data')}`, `clientPort=${own.clientPort}`, `clientPortAddress=${HOST}`,
    'maxClientCnxns=0', 'admin.enableServer=false', '4lw.commands.whitelist=srvr', 'autopurge.snapRetainCount=3', 'autopurge.purgeInterval=1',
    ...layout.zookeepers.map(({id, quorumPort, electionPort}) => `server.${id}=${HOST}:${quorumPort}:${electionPort}`), '',
  ].join('\n');
}

/**
 * A directory has one store. With the other one its containers would be nobody's, and an agent removes what is nobody's. `wanted`: the cluster, or
 * its own Postgres.
 */
export function requireStore(dir: string, wanted: 'cluster' | 'own'): void {
  const own = fs.existsSync(path.join(dir, 'postgres', 'PG_VERSION'));
  const imported = fs.existsSync(importedFile(dir));
  if (wanted === 'cluster' && own && !imported)
    throw new CetusError('conflict', `${dir} has a store of its own, whose containers a new cluster would not know. Move it: \`cetus cluster --only-store --data ${dir}\`, then \`cetus db import --from-data ${dir} --data ${dir}\` beside it`);
  if (wanted === 'own' && readLayout(dir) && (imported || !own)) throw new CetusError('conflict', `the store of ${dir} is a cluster: \`cetus cluster --data ${dir}\``);
}

function writeWhole(file: string, text: string): void {
  fs.writeFileSync(`${file}.new`, text, {mode: 0o600});
  fs.renameSync(`${file}.new`, file);
}

async function freePort(used: Set<number>): Promise<number> {
  for (let tries = 0; tries < 200; tries += 1) {
    const port = randomInt(FIRST_PORT, LAST_PORT);
    if (used.has(port) || !(await isFree(port))) continue;
    used.add(port);
    return port;
  }
  throw new CetusError('unavailable', `no free port between ${FIRST_PORT} and ${LAST_PORT}`);
}

function isFree(port: number): Promise<boolean> {
  const server = net.createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, HOST, () => server.close(() => resolve(true)));
  });
}
