#!/usr/bin/env node
/** The program: one command per process of Cetus, and the operator's verbs. Every error ends as one line on standard error. */
import path from 'node:path';
import {Command, Option} from 'commander';
import {isCetusError} from '../base/errors';
import {addDatabaseVerbs, DEFAULT_ZOOKEEPER_PATH, findZooKeeper} from './cli/db';
import {addOperatorVerbs} from './cli/verbs';
import type {UpOptions} from './up/up';
import {AGENT_PORT} from './address';
import {durationMs, pairs} from './cli/pairs';
import {VERSION} from './version';

/** See main/fleet/layout.ts, whose imports the other verbs need not pay for. */
const MAX_NODES = 35;
const MAX_ENDPOINTS = 8;
const DEFAULT_DATA = process.env.CETUS_DATA ?? '/var/lib/cetus';

const program = new Command('cetus')
  .description('A whole datacenter that looks like one Docker host')
  .version(VERSION)
  .option('--data <dir>', 'data directory of the datacenter on this machine', DEFAULT_DATA)
  .configureHelp({showGlobalOptions: true})
  .showHelpAfterError('(--help after a command lists its options)');

const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];
const dataOf = (command: Command): string => command.optsWithGlobals<{data: string}>().data;

/** What `up` and `cluster` have in common. */
const withListeners = (command: Command): Command => withPolicy(command
  .option('--listen <address>', 'for Docker clients: HOST:PORT or unix:///PATH; may be repeated (default: 127.0.0.1:2375)', collect)
  .option('--admin-listen <address>', 'for operators, beside the socket in the data directory; loopback or unix only', collect, [])
  .option('--containerd <socket>', 'use this running containerd in place of one of our own'));

/** ... and with `fleet`. */
const withPolicy = (command: Command): Command => command
  .option('--tls-cert <file>', 'serve TLS with this certificate (PEM)')
  .option('--tls-key <file>', 'its key')
  .option('--tls-ca <file>', 'clients must present a certificate signed by it')
  .option('--name <name>', 'what `docker info` shows as the host')
  .option('--insecure-registry <host>', 'pull from it over plain HTTP; loopback always may', collect, [])
  .option('--no-host-network', 'refuse `--network host`')
  .option('--no-privileged', 'refuse `--privileged` and its parts: capabilities, devices, the host\'s namespaces, profiles of one\'s own')
  .addOption(new Option('--binds <which>', 'host paths that containers may mount: all, off, or prefixes separated by commas').default('all'))
  .addOption(new Option('--log-level <level>').choices(['trace', 'debug', 'info', 'warn', 'error', 'fatal']).default('info'));

/** What all three are told. */
function asTold(options: PolicyFlags, command: Command): Pick<UpOptions, 'data' | 'tls' | 'name' | 'insecureRegistries' | 'logLevel' | 'policy'> {
  const fail = (text: string): never => command.error(`cetus ${command.name()}: ${text}`);
  if (Boolean(options.tlsCert) !== Boolean(options.tlsKey)) fail('--tls-cert and --tls-key belong together');
  if (options.tlsCa && !options.tlsCert) fail('--tls-ca needs --tls-cert and --tls-key');
  return {
    data: dataOf(command), name: options.name, insecureRegistries: options.insecureRegistry, logLevel: options.logLevel,
    tls: options.tlsCert && options.tlsKey ? {cert: options.tlsCert, key: options.tlsKey, ...(options.tlsCa ? {ca: options.tlsCa} : {})} : undefined,
    policy: {allowHostNetwork: options.hostNetwork, allowPrivileged: options.privileged, allowBinds: options.binds},
  };
}

async function run(options: UpFlags, command: Command, store: Pick<UpOptions, 'postgres' | 'cluster' | 'ownCluster'>): Promise<void> {
  const told = asTold(options, command);
  const {up} = await import('./up/up.js');
  await up({...told, listen: options.listen ?? ['127.0.0.1:2375'], adminListen: options.adminListen, ...store, containerd: options.containerd});
}

withListeners(program.command('up')
  .description('everything on this machine, in the foreground: Postgres, containerd, agent, endpoint'))
  .option('--postgres <url>', 'use this Postgres (14 or later) in place of one of our own')
  .option('--zookeeper <servers>', 'use this replicated store in place of a Postgres of our own: HOST:PORT,HOST:PORT of its ZooKeeper')
  .option('--zookeeper-path <path>', `its node there (default: ${DEFAULT_ZOOKEEPER_PATH})`)
  .option('--postgres-password-file <file>', 'the password of its role cetus')
  .action(async (options: UpFlags, command: Command) => {
    if (options.zookeeper && options.postgres) command.error('cetus up: --zookeeper and --postgres are two stores');
    if (Boolean(options.zookeeper) !== Boolean(options.postgresPasswordFile)) command.error('cetus up: --zookeeper and --postgres-password-file belong together');
    const cluster = options.zookeeper && options.postgresPasswordFile
      ? {zookeeper: findZooKeeper({data: '', zookeeper: options.zookeeper, zookeeperPath: options.zookeeperPath}, {}), passwordFile: options.postgresPasswordFile} : undefined;
    await run(options, command, {postgres: options.postgres, cluster});
  });

withListeners(program.command('cluster')
  .description('the same on a replicated store, all of it on this machine: three ZooKeeper servers, and peers of a Postgres and its sitter each'))
  .option('--peers <n>', 'so many; one alone writes without a second copy (see `cetus db one-node-write`)', '3')
  .option('--only-store', 'without Cetus on top')
  .action(async (options: UpFlags & {peers: string; onlyStore?: boolean}, command: Command) => {
    const peers = Number(options.peers);
    if (!Number.isInteger(peers) || peers < 1 || peers > 9) command.error('cetus cluster: --peers is a number from 1 to 9');
    if (options.onlyStore) await (await import('./cluster/only-store.js')).onlyStore({data: dataOf(command), peers, logLevel: options.logLevel});
    else await run(options, command, {ownCluster: {peers}});
  });

withPolicy(program.command('fleet')
  .description('several nodes on this machine: test hosts with a namespace, a containerd and an agent each, and endpoints before them')
  .option('--nodes <n>', 'so many; those that were there stay', '4')
  .option('--endpoints <n>', 'so many, on successive ports', '1')
  .option('--listen <address>', 'of the first endpoint, for Docker clients: HOST:PORT', '127.0.0.1:2375')
  .option('--balance <address>', 'one address before all endpoints: HOST:PORT')
  .option('--lease <duration>', 'for so long after a heartbeat a node is alive (default: 15s)'))
  .action(async (options: PolicyFlags & {nodes: string; endpoints: string; listen: string; balance?: string; lease?: string}, command: Command) => {
    const number = (name: 'nodes' | 'endpoints', most: number): number => {
      const n = Number(options[name]);
      if (!Number.isInteger(n) || n < 1 || n > most) command.error(`cetus fleet: --${name} is a number from 1 to ${most}`);
      return n;
    };
    const told = asTold(options, command);
    const counts = {nodes: number('nodes', MAX_NODES), endpoints: number('endpoints', MAX_ENDPOINTS)};
    await (await import('./fleet/fleet.js')).fleet({...told, ...counts, listen: options.listen, ...(options.balance === undefined ? {} : {balance: options.balance}), ...(options.lease === undefined ? {} : {leaseMs: durationMs(options.lease)})});
  });

program.command('down')
  .description('after `cetus up`, `cetus cluster` or `cetus fleet` has ended: stop its containers and take its bridges, rules and mounts off this machine; data stays')
  .action(async (_options: object, command: Command) => (await import('./up/down.js')).down(dataOf(command)));

program.command('endpoint')
  .description('the process that answers Docker clients and operators, and runs jobs')
  .requiredOption('--config <file>')
  .action(async (options: {config: string}) => (await import('./endpoint.js')).endpoint(options.config));

program.command('agent')
  .description('the process on each compute node. With --join: makes this machine a node of a fleet, once; afterwards `cetus agent --data DIR` is enough')
  .option('--config <file>', 'default: agent.json in the data directory, which --join makes')
  .option('--join <url>', 'https://HOST:PORT of an endpoint\'s listener for agents; may be repeated, for several endpoints', collect)
  .option('--token <token>', 'as `cetus node token` printed it (default: CETUS_TOKEN)')
  .option('--name <name>', 'with --join: what `cetus node ls` shows (default: the host name)')
  .option('--listen <address>', `with --join: HOST:PORT where endpoints reach this agent (default: the address by which it reaches them, port ${AGENT_PORT})`)
  .option('--containerd <socket>', 'with --join: containerd\'s socket', '/run/containerd/containerd.sock')
  .option('--label <label>', 'with --join: KEY=VALUE; may be repeated', collect)
  .action(async (options: AgentFlags, command: Command) => {
    const token = options.token ?? process.env.CETUS_TOKEN;
    if (options.join && !token) command.error('cetus agent: --join wants the --token of `cetus node token`');
    if (token === undefined) return (await import('./agent.js')).agent(options.config ?? path.join(dataOf(command), 'agent.json'));
    const file = options.config ?? await (await import('./join.js')).prepareConfig({
      urls: options.join ?? [], token, data: dataOf(command), name: options.name, listen: options.listen, containerd: options.containerd, labels: pairs(options.label ?? []),
    });
    return (await import('./agent.js')).agent(file, {token});
  });

program.command('sitter')
  .description('the process beside each Postgres of a replicated store')
  .requiredOption('--config <file>')
  .action(async (options: {config: string}) => (await import('./sitter.js')).sitter(options.config));

addOperatorVerbs(program);
addDatabaseVerbs(program);

interface AgentFlags { config?: string; join?: string[]; token?: string; name?: string; listen?: string; containerd: string; label?: string[] }
interface PolicyFlags {
  tlsCert?: string; tlsKey?: string; tlsCa?: string; name?: string; insecureRegistry: string[]; hostNetwork: boolean; privileged: boolean; binds: string; logLevel: string;
}
interface UpFlags extends PolicyFlags {
  zookeeper?: string; zookeeperPath?: string; postgresPasswordFile?: string; listen?: string[]; adminListen: string[]; containerd?: string; postgres?: string;
}

program.parseAsync().catch((err: unknown) => {
  process.stderr.write(`cetus: ${describe(err)}\n`);
  process.exit(1);
});

/** The chain of causes, without stack traces: those are in the logs. */
function describe(err: unknown): string {
  const parts: string[] = [];
  for (let at = err; at instanceof Error; at = at.cause) if (!parts.some((said) => said.includes(at.message))) parts.push(at.message);
  if (!parts.length) return String(err);
  return isCetusError(err) || parts.length > 1 ? parts.join(': ') : (err as Error).stack ?? parts[0];
}
