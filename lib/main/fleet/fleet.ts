/**
 * `cetus fleet`: a datacenter of several nodes on this one machine, in the foreground. Each node is a test host (host.ts), a network namespace with an address
 * on a bridge of ours, its own containerd, its own agent and its own directory; endpoints stand before them in our own namespace, with one Postgres behind.
 * Hosts join as machines do: each by a token of `cetus node token`, for a certificate from the datacenter's own authority.
 *
 * Its end takes everything off the machine, the containers too: test hosts are switched off. A killed one's hosts run on, and the next start finds them; `cetus
 * down` ends those. The data stay.
 */
import path from 'node:path';
import {createLog, logFile} from '../../base/log';
import {retry} from '../../base/retry';
import {CetusError} from '../../base/errors';
import type {Node} from '../../schema/node';
import {formatListen, type ListenAddress, parseListen, requireSafe} from '../address';
import {adminClient} from '../cli/client';
import {requireStore} from '../cluster/layout';
import type {EndpointConfig, Policy, TlsFiles} from '../config';
import {failLoudly} from '../lifetime';
import {readTls} from '../tls';
import {cleanUp} from '../up/down';
import {endFormer} from '../up/former';
import {Foreground} from '../up/foreground';
import {type Instance, loadInstance, lockDirectory} from '../up/instance';
import {OwnPostgres} from '../up/own-postgres';
import {makeDirectories, requireBinds, requireFree, requireKind, requireRoot} from '../up/preflight';
import {clientSettings, quoted} from '../up/up';
import {Balancer} from './balancer';
import {TestEndpoint} from './endpoints';
import {TestHost} from './host';
import {FLEET_PORT, type FleetLayout, loadLayout, namespaceOf, ourAddress} from './layout';
import {listenForSwitches} from './switches';
import {Underlay} from './underlay';

export interface FleetOptions {
  data: string;
  nodes: number;
  endpoints: number;
  /** Of the first endpoint; the others have the ports behind it. Port 0: any. */
  listen: string;
  /** One address before all endpoints. */
  balance?: string;
  tls?: TlsFiles;
  policy: Policy;
  insecureRegistries: string[];
  name?: string;
  /** How long a node is alive after a heartbeat. */
  leaseMs?: number;
  logLevel: string;
}

/** All nodes begin at once, and each containerd takes its second. */
const JOIN_TRIES = 600;

export async function fleet(options: FleetOptions): Promise<void> {
  requireRoot('fleet');
  const listen = successive(options.listen, options.endpoints);
  for (const address of listen) requireSafe(address, options.tls !== undefined);
  const balance = options.balance === undefined ? undefined : parseListen(options.balance);
  if (balance?.kind === 'unix') throw new CetusError('invalid', `--balance ${options.balance}: expected HOST:PORT`);
  if (balance) requireSafe(balance, options.tls !== undefined);
  if (options.tls) readTls(options.tls);
  requireBinds(options.policy.allowBinds);

  const dir = path.resolve(options.data);
  makeDirectories(dir, ['nodes']);
  const unlocks = [await lockDirectory(dir)];
  requireKind(dir, 'fleet');
  requireStore(dir, 'own');
  const instance = loadInstance(dir);
  const layout = loadLayout(dir, instance, options.nodes, await Underlay.stands(instance.prefix));
  const log = createLog({name: 'fleet', level: options.logLevel as never, stream: logFile(path.join(dir, 'log', 'fleet.log'))});
  failLoudly(log);
  const run = new Foreground({dir, log, unlocks, farewell: 'stopping; the nodes are switched off', afterwards: () => cleanUp(dir)});

  try {
    await endFormer(dir, log, ['endpoint', 'agent']);
    for (const address of [...listen, ...(balance ? [balance] : [])]) await requireFree(address);
    const postgres = new OwnPostgres(dir, log);
    run.add(postgres);
    const postgresUrl = await run.step('Postgres', () => postgres.start());

    const underlay = new Underlay(layout, instance.prefix, log);
    const fronts = listen.map((at, n) => new TestEndpoint(n + 1, endpointConfig(dir, instance, options, layout, {number: n + 1, postgresUrl, listen: at}), dir, log));
    const admin = path.join(dir, 'run', 'admin.sock');
    const token = async (): Promise<string> => (await adminClient(admin, '')<{token: string}>('POST', '/v1/tokens', {})).token;
    const urls = listen.map((_address, n) => `https://${ourAddress(layout)}:${FLEET_PORT + n}`);
    const hosts = layout.nodes.map((node) => {
      // Each begins at another endpoint, so that all endpoints hear of some nodes.
      const controlPlane = urls.map((_url, n) => urls[(node.number - 1 + n) % urls.length]!);
      return new TestHost(node, {dir, underlay, token, controlPlane, insecureRegistries: options.insecureRegistries, labels: {}, logLevel: options.logLevel, log});
    });

    // Ended in reverse: the agents before the endpoints, so that the reports of their last moments still find a listener.
    run.add(...hosts.map((host) => host.containerdPart));
    run.add(...fronts.map((front) => front.part));
    run.add(...hosts.map((host) => host.agentPart));
    await run.step(`${hosts.length} hosts`, async () => {
      await underlay.ensure();
      await Promise.all(hosts.map((host) => host.startContainerd()));
    });
    await run.step('endpoints and agents', async () => {
      await Promise.all(fronts.map((front) => front.start()));
      await Promise.all(hosts.map((host) => host.startAgent()));
      await joined(admin, hosts.length);
    });
    run.add(await listenForSwitches(path.join(dir, 'run', 'fleet.sock'), {hosts, endpoints: fronts, layout, underlay}));
    let balanced: string | undefined;
    if (balance) {
      const balancer = new Balancer(fronts.map((front) => parseListen(front.listen[0]!)).flatMap((at) => (at.kind === 'tcp' ? [at] : [])));
      run.add(balancer.part);
      balanced = formatListen(await balancer.listen(balance.host, balance.port));
    }

    const nodes = layout.nodes.map((node) => ({...node, namespace: namespaceOf(node, instance.prefix)}));
    run.show(() => ({
      listen: [...(balanced ? [balanced] : []), ...fronts.flatMap((front) => front.listen)], admin: `unix://${admin}`, prefix: instance.prefix,
      endpoints: fronts.map((front, n) => ({listen: front.listen[0], admin: `unix://${adminSocket(dir, n + 1)}`})), nodes,
    }));
    greet(run, options, dir, fronts.map((front) => front.listen[0]!), balanced, layout);
  } catch (err) {
    await run.failed(err);
  }
}

const adminSocket = (dir: string, number: number): string => path.join(dir, 'run', number === 1 ? 'admin.sock' : `admin-${number}.sock`);

function successive(first: string, count: number): ListenAddress[] {
  const at = parseListen(first);
  if (at.kind === 'unix') throw new CetusError('invalid', `--listen ${first}: expected HOST:PORT, for the endpoints have successive ports`);
  return Array.from({length: count}, (_, n) => ({...at, port: at.port === 0 ? 0 : at.port + n}));
}

interface OneEndpoint { number: number; postgresUrl: string; listen: ListenAddress }

function endpointConfig(dir: string, instance: Instance, options: FleetOptions, layout: FleetLayout, one: OneEndpoint): EndpointConfig {
  return {
    id: instance.id, name: options.name ?? instance.name, postgresUrl: one.postgresUrl, listen: [formatListen(one.listen)], ...(options.tls ? {tls: options.tls} : {}),
    adminListen: [`unix://${adminSocket(dir, one.number)}`], fleetListen: `${ourAddress(layout)}:${FLEET_PORT + one.number - 1}`, authority: {keyFile: path.join(dir, 'authority.key')},
    policy: options.policy, addressPools: instance.addressPools, insecureRegistries: options.insecureRegistries, ...(options.leaseMs === undefined ? {} : {leaseMs: options.leaseMs}), logLevel: options.logLevel,
  };
}

async function joined(admin: string, count: number): Promise<void> {
  const ask = adminClient(admin, '');
  await retry({tries: JOIN_TRIES, firstDelayMs: 50, maxDelayMs: 100, retryable: () => true}, async () => {
    const alive = (await ask<Node[]>('GET', '/v1/nodes')).filter((node) => node.liveness === 'alive').length;
    if (alive < count) throw new CetusError('unavailable', `${alive} of ${count} nodes live`);
  }).catch((err: unknown) => {
    throw new CetusError('timeout', 'the agents did not join the endpoints', {cause: err});
  });
}

function greet(run: Foreground, options: FleetOptions, dir: string, listen: string[], balanced: string | undefined, layout: FleetLayout): void {
  const program = path.relative(process.cwd(), path.resolve(__dirname, '..', 'cetus.js'));
  const others = balanced ? listen : listen.slice(1);
  run.line(`Cetus is ready, with ${layout.nodes.length} nodes. Point docker at it:

    export ${clientSettings(balanced ?? listen[0]!, options.tls).join(' ')}
    docker run --rm busybox hostname
${others.length ? `\nFurther endpoints:  ${others.join(' ')}` : ''}
The operator's verbs:  node ${program} --data ${quoted(dir)} node ls | ps --wide | why CONTAINER
A node without power:  curl --unix-socket ${quoted(path.join(dir, 'run', 'fleet.sock'))} -X POST http://fleet/nodes/${layout.nodes.length}/power-off   (and power-on)
Logs: ${path.join(dir, 'log')}    Ctrl-C switches everything off; the data stay.`);
}
