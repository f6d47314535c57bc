/**
 * `cetus up`: a whole datacenter on this machine, in the foreground. It keeps four parts alive: Postgres, containerd, the agent, and the
 * endpoint with its runner. Each is a process of its own, so that any of them may die without the others. Containers outlive them all:
 * they belong to containerd's shims. DIR/run/up.json says who runs (process ids, addresses) for scripts and tests.
 */
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import {createLog, logFile} from '../../base/log';
import {retry} from '../../base/retry';
import {startContainerd} from '../../agent/containerd/process';
import {formatListen, parseListen, requireSafe} from '../address';
import {adminClient} from '../cli/client';
import type {AgentConfig, EndpointConfig, Policy, TlsFiles, ZooKeeperPlace} from '../config';
import {clusterStore} from '../store';
import {readTls} from '../tls';
import {OwnCluster} from '../cluster/cluster';
import {requireStore} from '../cluster/layout';
import {cetusChild} from './child';
import {failLoudly} from '../lifetime';
import {Foreground} from './foreground';
import {endFormer} from './former';
import {type Instance, loadInstance, lockDirectory, sharedNamespace} from './instance';
import {endFormerPostgres, OwnPostgres} from './own-postgres';
import {makeDirectories, requireBinds, requireCluster, requireFree, requireKind, requirePostgres, requireRoot} from './preflight';

export interface UpOptions {
  data: string;
  listen: string[];
  adminListen: string[];
  tls?: TlsFiles;
  /** A running containerd's socket to use in place of one of our own. */
  containerd?: string;
  /** Any Postgres 14 or later, in place of one of our own. */
  postgres?: string;
  /** A replicated store in place of one of our own. */
  cluster?: {zookeeper: ZooKeeperPlace; passwordFile: string};
  /** A replicated store of our own with so many peers, all of it on this machine (`cetus cluster`). */
  ownCluster?: {peers: number};
  policy: Policy;
  insecureRegistries: string[];
  name?: string;
  logLevel: string;
}

type StoreConfig = Pick<EndpointConfig, 'postgresUrl' | 'store'>;

/** The first start makes a database and copies it. */
const FIRST_STORE_TIMEOUT_MS = 120_000;

export async function up(options: UpOptions): Promise<void> {
  requireRoot('up');
  const listen = options.listen.map(parseListen);
  for (const address of listen) requireSafe(address, options.tls !== undefined);
  for (const address of options.adminListen.map(parseListen)) requireSafe(address, false);
  if (options.tls) readTls(options.tls);
  requireBinds(options.policy.allowBinds);

  const dir = path.resolve(options.data);
  makeDirectories(dir);
  const unlocks = [await lockDirectory(dir)];
  if (options.ownCluster) unlocks.push(await lockDirectory(dir, 'store'));
  requireKind(dir, 'machine');
  if (!options.cluster && !options.postgres) requireStore(dir, options.ownCluster ? 'cluster' : 'own');
  const instance = loadInstance(dir);
  const log = createLog({name: 'up', level: options.logLevel as never, stream: logFile(path.join(dir, 'log', 'up.log'))});
  failLoudly(log);
  const run = new Foreground({dir, log, unlocks, farewell: 'stopping; containers run on'});

  try {
    await endFormer(dir, log, options.ownCluster ? ['endpoint', 'agent', 'sitter'] : ['endpoint', 'agent']);
    for (const address of [...listen, ...options.adminListen.map(parseListen)]) await requireFree(address);
    let store: StoreConfig;
    if (options.ownCluster) {
      await endFormerPostgres(dir, log);
      const cluster = await OwnCluster.open(dir, options.ownCluster.peers, options.logLevel, log);
      for (const part of cluster.parts) run.add(part);
      store = {store: cluster.store};
      await run.step('ZooKeeper', () => cluster.startZooKeeper());
      await run.step('peers', () => cluster.startPeers(log));
      await run.step('the replicated store', () => requireCluster(store, log, FIRST_STORE_TIMEOUT_MS));
    } else if (options.cluster) {
      await endFormerPostgres(dir, log);
      store = {store: clusterStore(options.cluster.zookeeper, path.resolve(options.cluster.passwordFile))};
      await run.step('the replicated store', () => requireCluster(store, log));
    } else if (options.postgres) {
      await endFormerPostgres(dir, log);
      await requirePostgres(options.postgres);
      store = {postgresUrl: options.postgres};
    } else {
      const postgres = new OwnPostgres(dir, log);
      run.add(postgres);
      store = {postgresUrl: await run.step('Postgres', () => postgres.start())};
    }
    let containerdSocket = options.containerd;
    if (!containerdSocket) {
      containerdSocket = await run.step('containerd', async () => {
        const containerd = await startContainerd({directory: path.join(dir, 'containerd'), log});
        run.add({name: 'containerd', pid: () => containerd.pid(), stop: () => containerd.stop()});
        return containerd.socket;
      });
    }

    const files = writeConfigs(dir, instance, options, store, containerdSocket);
    // Ended in reverse: the agent before the endpoint, so that the reports of its last moments still find a listener.
    const endpoint = cetusChild('endpoint', files.endpoint, {dir, log});
    const agent = cetusChild('agent', files.agent, {dir, log});
    run.add({name: 'endpoint', pid: () => endpoint.pid, stop: () => endpoint.stop()});
    run.add({name: 'agent', pid: () => agent.pid, stop: () => agent.stop()});
    const adminSocket = path.join(dir, 'run', 'admin.sock');
    const [ready] = await run.step('endpoint and agent', async () => {
      const both = await Promise.all([endpoint.start(), agent.start()]);
      await joined(adminSocket);
      return both;
    });

    const addresses = (ready.listen as string[] | undefined) ?? listen.map(formatListen);
    // Clients hold the port that a 0 came to: an endpoint that is started again must come back there.
    writeConfigs(dir, instance, {...options, listen: addresses}, store, containerdSocket);
    run.show(() => ({listen: addresses, admin: `unix://${adminSocket}`, prefix: instance.prefix}));
    greet(run, addresses, options, dir);
  } catch (err) {
    await run.failed(err);
  }
}

/** Until the node has joined there is nowhere to run anything. */
async function joined(adminSocket: string): Promise<void> {
  const ask = adminClient(adminSocket, '');
  const ping = retry({tries: 200, firstDelayMs: 50, maxDelayMs: 100, retryable: () => true}, () => ask('GET', '/v1/ping'));
  await ping.catch((err: unknown) => {
    throw new CetusError('timeout', 'the agent did not join the endpoint', {cause: err});
  });
}

function writeConfigs(dir: string, instance: Instance, options: UpOptions, store: StoreConfig, containerdSocket: string): {endpoint: string; agent: string} {
  const fleetListen = `unix://${path.join(dir, 'run', 'fleet.sock')}`;
  const endpoint: EndpointConfig = {
    id: instance.id, name: options.name ?? instance.name, ...store, listen: options.listen, ...(options.tls ? {tls: options.tls} : {}),
    adminListen: [`unix://${path.join(dir, 'run', 'admin.sock')}`, ...options.adminListen], fleetListen,
    policy: options.policy, addressPools: instance.addressPools, insecureRegistries: options.insecureRegistries, logLevel: options.logLevel,
  };
  const agent: AgentConfig = {
    nodeId: instance.nodeId, name: instance.nodeName, dataDir: path.join(dir, 'agent'), rootDir: dir, containerdSocket,
    containerdNamespace: options.containerd ? sharedNamespace(instance.prefix) : 'cetus',
    listen: `unix://${path.join(dir, 'run', 'agent.sock')}`, controlPlane: fleetListen, prefix: instance.prefix, labels: {},
    insecureRegistries: options.insecureRegistries, logLevel: options.logLevel,
  };
  const write = (name: string, config: object): string => {
    const file = path.join(dir, 'run', `${name}.json`);
    // The database's address may hold a password.
    fs.writeFileSync(file, JSON.stringify(config, null, 2), {mode: 0o600});
    return file;
  };
  return {endpoint: write('endpoint', endpoint), agent: write('agent', agent)};
}

function greet(screen: Foreground, addresses: string[], options: UpOptions, dir: string): void {
  const program = path.relative(process.cwd(), path.resolve(__dirname, '..', 'cetus.js'));
  screen.line(`Cetus is ready. Point docker at it:

    export ${clientSettings(addresses[0], options.tls).join(' ')}
    docker run --rm busybox echo hello

The operator's verbs:  node ${program} --data ${quoted(dir)} node ls | ps --wide | job ls
${options.ownCluster || options.cluster ? `The replicated store:  node ${program} --data ${quoted(dir)} db status | history | verify | promote PEER
` : ''}Logs: ${path.join(dir, 'log')}    Ctrl-C ends Cetus; containers run on, and are found again at the next start.`);
}

/** What a client wants in its environment. An address that means "all of this machine's" is none that one could connect to. */
export function clientSettings(address: string, tls: TlsFiles | undefined): string[] {
  const reachable = address.replace(/^tcp:\/\/(0\.0\.0\.0|\[::\]):/, 'tcp://THIS-MACHINE:');
  if (!tls || !address.startsWith('tcp:')) return [`DOCKER_HOST=${quoted(reachable)}`];
  return [`DOCKER_HOST=${reachable}`, 'DOCKER_TLS_VERIFY=1', `DOCKER_CERT_PATH=DIR-WITH-${tls.ca ? 'ca.pem,cert.pem,key.pem' : 'ca.pem'}`];
}

/** As a shell wants it, where it holds anything that a shell would take for its own. */
export const quoted = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
