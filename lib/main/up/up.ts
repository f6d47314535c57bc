/**
 * `cetus up`: a whole datacenter on this machine, in the foreground. It keeps four parts alive: Postgres, containerd, the agent, and the
 * endpoint with its runner. Each is a process of its own, so that any of them may die without the others. Containers outlive them all:
 * they belong to containerd's shims.
 *
 * DIR/run/up.json says who runs (process ids, addresses) for scripts and tests; it is replaced whole at every change.
 */
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import {createLog, type Log, logFile} from '../../base/log';
import {retry} from '../../base/retry';
import {startContainerd} from '../../agent/containerd/process';
import {formatListen, parseListen, requireSafe} from '../address';
import {adminClient} from '../cli/client';
import type {AgentConfig, EndpointConfig, Policy, TlsFiles, ZooKeeperPlace} from '../config';
import {clusterStore} from '../store';
import {readTls} from '../tls';
import {OwnCluster} from '../cluster/cluster';
import {requireStore} from '../cluster/layout';
import {SupervisedChild} from './child';
import {failLoudly} from '../lifetime';
import {endFormer} from './former';
import {type Instance, loadInstance, lockDirectory, sharedNamespace} from './instance';
import {endFormerPostgres, OwnPostgres} from './own-postgres';
import {makeDirectories, requireBinds, requireCluster, requireFree, requirePostgres, requireRoot} from './preflight';

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

/** Something that `up` started and will end. */
interface Part { name: string; pid(): number | undefined; stop(): Promise<void> }

const READY_TIMEOUT_MS = 30_000;
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
  const unlock = (): void => unlocks.forEach((one) => one());
  if (options.ownCluster) unlocks.push(await lockDirectory(dir, 'store'));
  if (!options.cluster && !options.postgres) requireStore(dir, options.ownCluster ? 'cluster' : 'own');
  const instance = loadInstance(dir);
  const log = createLog({name: 'up', level: options.logLevel as never, stream: logFile(path.join(dir, 'log', 'up.log'))});
  failLoudly(log);
  const screen = new Screen();
  const parts: Part[] = [];

  let ending = false;
  let underWay: Promise<unknown> = Promise.resolve();
  /** One step of the start. What it starts is among the parts, at the latest when it has settled: an end amid the start leaves nothing behind. */
  const step = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const working = screen.step(name, work);
    underWay = working.catch(() => undefined);
    const result = await working;
    if (ending) throw new CetusError('canceled', 'stopping');
    return result;
  };
  const stopParts = async (): Promise<void> => {
    for (const part of [...parts].reverse()) await part.stop().catch((err: unknown) => log.error({err, part: part.name}, 'stop'));
  };
  const end = async (status: number): Promise<void> => {
    if (ending) return;
    ending = true;
    clearInterval(statusTimer);
    fs.rmSync(path.join(dir, 'run', 'up.json'), {force: true});
    await stopParts();
    await underWay;
    await stopParts();
    unlock();
    process.exit(status);
  };
  let statusTimer: NodeJS.Timeout | undefined;
  process.on('SIGINT', () => {
    if (!ending) screen.line('stopping; containers run on');
    void end(0);
  });
  // A terminal that is closed ends us in good order too.
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void end(0));

  try {
    await endFormer(dir, log, options.ownCluster ? ['endpoint', 'agent', 'sitter'] : ['endpoint', 'agent']);
    for (const address of [...listen, ...options.adminListen.map(parseListen)]) await requireFree(address);
    let store: StoreConfig;
    if (options.ownCluster) {
      await endFormerPostgres(dir, log);
      const cluster = await OwnCluster.open(dir, options.ownCluster.peers, options.logLevel, log);
      parts.push(...cluster.parts);
      store = {store: cluster.store};
      await step('ZooKeeper', () => cluster.startZooKeeper());
      await step('peers', () => cluster.startPeers(log));
      await step('the replicated store', () => requireCluster(store, log, FIRST_STORE_TIMEOUT_MS));
    } else if (options.cluster) {
      await endFormerPostgres(dir, log);
      store = {store: clusterStore(options.cluster.zookeeper, path.resolve(options.cluster.passwordFile))};
      await step('the replicated store', () => requireCluster(store, log));
    } else if (options.postgres) {
      await endFormerPostgres(dir, log);
      await requirePostgres(options.postgres);
      store = {postgresUrl: options.postgres};
    } else {
      const postgres = new OwnPostgres(dir, log);
      parts.push(postgres);
      store = {postgresUrl: await step('Postgres', () => postgres.start())};
    }
    let containerdSocket = options.containerd;
    if (!containerdSocket) {
      containerdSocket = await step('containerd', async () => {
        const containerd = await startContainerd({directory: path.join(dir, 'containerd'), log});
        parts.push({name: 'containerd', pid: () => containerd.pid(), stop: () => containerd.stop()});
        return containerd.socket;
      });
    }

    const files = writeConfigs(dir, instance, options, store, containerdSocket);
    // Ended in reverse: the agent before the endpoint, so that the reports of its last moments still find a listener.
    const endpoint = child('endpoint', files.endpoint, dir, log);
    const agent = child('agent', files.agent, dir, log);
    parts.push({name: 'endpoint', pid: () => endpoint.pid, stop: () => endpoint.stop()}, {name: 'agent', pid: () => agent.pid, stop: () => agent.stop()});
    const adminSocket = path.join(dir, 'run', 'admin.sock');
    const [ready] = await step('endpoint and agent', async () => {
      const both = await Promise.all([endpoint.start(), agent.start()]);
      await joined(adminSocket);
      return both;
    });

    const addresses = (ready.listen as string[] | undefined) ?? listen.map(formatListen);
    // Clients hold the port that a 0 came to: an endpoint that is started again must come back there.
    writeConfigs(dir, instance, {...options, listen: addresses}, store, containerdSocket);
    const admin = `unix://${adminSocket}`;
    let written = '';
    let unwritten = false;
    const writeStatus = (): void => {
      const children = Object.fromEntries(parts.map((p) => [p.name, p.pid() ?? 0]));
      const text = JSON.stringify({pid: process.pid, listen: addresses, admin, prefix: instance.prefix, children}, null, 2);
      if (text === written) return;
      try {
        fs.writeFileSync(path.join(dir, 'run', 'up.json.new'), text);
        fs.renameSync(path.join(dir, 'run', 'up.json.new'), path.join(dir, 'run', 'up.json'));
        written = text;
      } catch (err) {
        // A full disk is no reason to end: the next turn tries again.
        if (!unwritten) log.error({err}, 'up.json could not be written');
        unwritten = true;
      }
    };
    writeStatus();
    statusTimer = setInterval(writeStatus, 50);
    greet(screen, addresses, options, dir);
  } catch (err) {
    // It is end() that ends what was started and the process.
    if (ending) return;
    log.error({err}, 'start');
    await stopParts();
    unlock();
    throw err;
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

/**
 * Both hand streams on, in chunks of 64 KiB. V8 frees such chunks each 32 MB, beside the program, and counts what is under way as old generation:
 * with a heap of 20 MB it takes that for its limit and collects the whole heap, ten times in a load of 200 MB, which doubles the CPU of a stream.
 * So nothing of the old generation is collected below 80 MB (but when idle), and chunks are freed at once. A large young generation does not help
 * streams; it is 12 to 27 MB of memory each.
 */
const NODE_FLAGS = ['--initial-old-space-size=80', '--no-concurrent-array-buffer-sweeping', '--max-semi-space-size=4'];

function child(name: 'endpoint' | 'agent', configFile: string, dir: string, log: Log): SupervisedChild {
  return new SupervisedChild({
    name, log, readyTimeoutMs: READY_TIMEOUT_MS, logFile: path.join(dir, 'log', `${name}.log`),
    args: [...NODE_FLAGS, path.resolve(__dirname, '..', 'cetus.js'), name, '--config', configFile],
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

function greet(screen: Screen, addresses: string[], options: UpOptions, dir: string): void {
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
const quoted = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** Says what is being done while it takes long; one line per step. */
class Screen {
  line(text: string): void {
    process.stdout.write(`${text}\n`);
  }

  async step<T>(name: string, work: () => Promise<T>): Promise<T> {
    const from = Date.now();
    const dots = setInterval(() => process.stdout.write(`  ${name}: still starting (${Math.round((Date.now() - from) / 1000)} s)\n`), 3_000);
    try {
      const result = await work();
      process.stdout.write(`  ${name}: up after ${((Date.now() - from) / 1000).toFixed(1)} s\n`);
      return result;
    } finally {
      clearInterval(dots);
    }
  }
}
