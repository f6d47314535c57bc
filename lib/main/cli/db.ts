/**
 * `cetus db`: the operator's verbs for a replicated store. They speak to ZooKeeper and to the sitters, not to an endpoint: they have to work while everything else
 * is down. Where ZooKeeper is: --zookeeper, CETUS_ZOOKEEPER, or the configuration in the data directory.
 *
 * Exit status: 0 done, or nothing is wrong; 1 failed, or `verify` found something broken; 2 `verify` found nothing broken and something degraded.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type {Command} from 'commander';
import {systemClock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import {silentLog} from '../../base/log';
import type {Operator} from '../../manatee/operator';
import {lagOf, writable, type ClusterReport, type PeerReport} from '../../manatee/status';
import type {ClusterState, HistoryEntry} from '../../manatee/state';
import type {Finding} from '../../manatee/verify';
import {passwordFile} from '../cluster/layout';
import type {ClusterStore, ZooKeeperPlace} from '../config';
import {clusterStore} from '../store';
import {table} from './print';

interface Flags { data: string; zookeeper?: string; zookeeperPath?: string; json?: boolean; by?: string; limit?: string; reason?: string; timeout?: string; anyway?: boolean }

export const DEFAULT_ZOOKEEPER_PATH = '/cetus/db';
const CONNECT_TIMEOUT_MS = 10_000;
const SESSION_TIMEOUT_MS = 10_000;
/** Where `cetus up`, `cetus cluster` and a person leave a configuration that knows. */
const FILES = ['endpoint.json', 'sitter.json', 'cluster.json'];

const write = (text: string): void => void process.stdout.write(`${text}\n`);

/** Throws `invalid` where nobody says. */
export function findZooKeeper(flags: {data: string; zookeeper?: string; zookeeperPath?: string}, environment: NodeJS.ProcessEnv = process.env): ZooKeeperPlace {
  const said = flags.zookeeper ?? environment.CETUS_ZOOKEEPER;
  const at = flags.zookeeperPath ?? environment.CETUS_ZOOKEEPER_PATH;
  if (said) {
    // As ZooKeeper's own tools take it: the path may stand behind the servers.
    const slash = said.indexOf('/');
    return {servers: slash < 0 ? said : said.slice(0, slash), path: at ?? (slash < 0 ? DEFAULT_ZOOKEEPER_PATH : said.slice(slash))};
  }
  for (const file of FILES) {
    const found = placeIn(path.join(flags.data, 'run', file));
    if (found) return {servers: found.servers, path: at ?? found.path};
  }
  throw new CetusError('invalid', `where is ZooKeeper? Give --zookeeper HOST:PORT,HOST:PORT, set CETUS_ZOOKEEPER, or name a data directory of a cluster with --data (${flags.data} is none)`);
}

function read(file: string): {zookeeper?: ZooKeeperPlace; store?: Partial<ClusterStore>} {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as {zookeeper?: ZooKeeperPlace; store?: Partial<ClusterStore>};
  } catch {
    return {}; // none, or none that may be read
  }
}
const storeIn = (file: string): Partial<ClusterStore> | undefined => read(file).store;
const placeIn = (file: string): ZooKeeperPlace | undefined => read(file).zookeeper ?? storeIn(file)?.zookeeper;

export function addDatabaseVerbs(program: Command): void {
  const db = program.command('db').description('the replicated store: who is primary, and what an operator may order');

  const verb = (usage: string, description: string, run: (operator: Operator, args: string[], flags: Flags) => Promise<void>): Command =>
    db.command(usage).description(description)
      .option('--zookeeper <servers>', 'HOST:PORT,HOST:PORT[/PATH] (default: CETUS_ZOOKEEPER, or what the data directory says)')
      .option('--zookeeper-path <path>', `the cluster's node (default: ${DEFAULT_ZOOKEEPER_PATH})`)
      .option('--by <name>', 'whom the history shall name (default: this user)')
      .option('--json', 'for programs')
      .action(async (...given: unknown[]) => {
        const command = given[given.length - 1] as Command;
        const flags = command.optsWithGlobals<Flags>();
        await withOperator(flags, (operator) => run(operator, command.args, flags));
      });

  verb('status', 'every peer: role, WAL, lag, gate', async (operator, _args, flags) => {
    const found = await operator.status();
    write(flags.json ? json({...found, writable: found.view.state && writable(found.view.state, found)}) : statusText(found));
  });
  verb('history', 'every transition, oldest first, with its reason', async (operator, _args, flags) => {
    const entries = await operator.history(count(flags.limit ?? '50', '--limit'));
    write(flags.json ? json(entries) : historyText(entries));
  }).option('-n, --limit <n>', 'the newest so many', '50');
  verb('verify', 'check every invariant; exit status 1 where one is broken, 2 where something is degraded', async (operator, _args, flags) => {
    const {findings, report, transitions} = await operator.verify();
    write(flags.json ? json(findings) : findingsText(findings, report, transitions));
    if (findings.length) process.exitCode = findings.some(({kind}) => kind === 'broken') ? 1 : 2;
  });
  verb('freeze', 'no generation begins but by an operator\'s order', async (operator, _args, flags) => said(await operator.freeze(flags.reason ?? 'no reason given'), flags, 'frozen: whoever fails now is not replaced'))
    .option('--reason <text>', 'for whoever wonders');
  verb('unfreeze', 'failover by itself again', async (operator, _args, flags) => said(await operator.unfreeze(), flags, 'not frozen'));
  verb('promote <peer>', 'make this peer primary, and wait until it serves', async (operator, [peer], flags) => {
    const state = await operator.promote(peer!, waiting(flags));
    said(state, flags, `${peer} is primary of generation ${state.generation} and lets clients in`);
  }).option('--timeout <seconds>', 'take the order back after that', '60');
  verb('rebuild <peer>', 'have this peer throw its data away and copy them anew, and wait for it', async (operator, [peer], flags) => {
    await operator.rebuild(peer!, waiting(flags));
    said(null, flags, `${peer} has a new copy and its place`);
  }).option('--timeout <seconds>', 'stop waiting after that; the order stands', '3600');
  verb('forget <peer>', 'a deposed peer or an async that does not come back loses its place', async (operator, [peer], flags) => said(await operator.forget(peer!), flags, `${peer} has no place`));
  verb('one-node-write <on|off>', 'the primary acknowledges writes alone: for the beginning, or where the others are gone for good', async (operator, [which], flags) => {
    if (which !== 'on' && which !== 'off') throw new CetusError('invalid', 'cetus db one-node-write: on or off');
    said(await operator.oneNodeWrite(which === 'on'), flags, which === 'on' ? 'writes are on the primary alone from now on: lost with it' : 'writes wait for a sync');
  });
  verb('adopt <peer>', 'make a cluster of the database that this peer has', async (operator, [peer], flags) => {
    const state = await operator.adopt(peer!, flags.anyway ?? false);
    said(state, flags, `${peer} is primary of generation ${state.generation}, in one-node-write mode: start the other peers, then \`cetus db one-node-write off\``);
  }).option('--anyway', 'although other peers have data, which will be thrown away where they differ');

  db.command('import').description('copy the store of `cetus up` in a data directory into this cluster, which must be empty; Cetus must not run on either')
    .requiredOption('--from-data <dir>', 'the data directory')
    .option('--zookeeper <servers>', 'of the cluster (default: CETUS_ZOOKEEPER, or what --data says)')
    .option('--zookeeper-path <path>', `the cluster's node (default: ${DEFAULT_ZOOKEEPER_PATH})`)
    .option('--postgres-password-file <file>', 'the password of its role cetus')
    .action(async (_options: object, command: Command) => {
      const flags = command.optsWithGlobals<Flags & {fromData: string; postgresPasswordFile?: string}>();
      const {importStore} = await import('../import.js');
      const {already, buckets} = await importStore(flags.fromData, clusterStore(findZooKeeper(flags), findPassword(flags)), write);
      const all = buckets.reduce((sum, {objects}) => sum + objects, 0);
      write(already ? `it has been copied before: ${all} objects are there, and the same` : `copied and compared: ${all} objects in ${buckets.length} buckets`);
    });
}

/** Its own configuration names it, or it lies where `cetus cluster` puts it. */
function findPassword(flags: Flags & {postgresPasswordFile?: string}): string {
  if (flags.postgresPasswordFile) return flags.postgresPasswordFile;
  const found = [storeIn(path.join(flags.data, 'run', 'endpoint.json'))?.passwordFile, passwordFile(path.resolve(flags.data), 'client')].find((file) => file !== undefined && fs.existsSync(file));
  if (!found) throw new CetusError('invalid', 'which password has the cluster\'s role cetus? Give --postgres-password-file');
  return found;
}

async function withOperator(flags: Flags, run: (operator: Operator) => Promise<void>): Promise<void> {
  // No other verb, and not `cetus up`, needs a client of ZooKeeper.
  const [{createCoordination}, {Operator}, {monotonic}] = await Promise.all([import('../../manatee/zookeeper/coordination.js'), import('../../manatee/operator.js'), import('../../manatee/monotonic.js')]);
  const coordination = createCoordination({...findZooKeeper(flags), sessionTimeoutMs: SESSION_TIMEOUT_MS, clock: monotonic, log: silentLog()});
  try {
    await coordination.ready(CONNECT_TIMEOUT_MS);
    await run(new Operator({coordination, by: flags.by ?? os.userInfo().username, clock: monotonic, wallClock: () => new Date(systemClock.now()).toISOString()}));
  } finally {
    await coordination.close();
  }
}

const waiting = (flags: Flags) => ({deadlineMs: count(flags.timeout!, '--timeout') * 1000, tell: (text: string) => { if (!flags.json) process.stderr.write(`waiting for ${text}\n`); }});

function count(text: string, option: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1 || n > 1_000_000) throw new CetusError('invalid', `${option} ${text}: a whole number of at least 1 is wanted`);
  return n;
}

function said(state: ClusterState | null, flags: Flags, text: string): void {
  write(flags.json ? json(state ?? {}) : text);
}

/** Distances are bigints, and short enough to be numbers. */
const json = (value: unknown): string => JSON.stringify(value, (_name, inner: unknown) => (typeof inner === 'bigint' ? Number(inner) : inner), 2);

// ---- for people ----

export function statusText(found: ClusterReport): string {
  const {view, peers} = found;
  const {state} = view;
  if (!state) return ['there is no cluster yet', ...peers.map(({peer, document, unanswered}) => `  ${peer.id}: ${document?.last?.reason ?? unanswered ?? 'nothing is known'}`)].join('\n');
  const primary = peers.find(({role}) => role === 'primary')?.document;
  const rows = peers.map((report) => {
    const {peer, role, document} = report;
    const facts = document?.facts;
    const lag = role === 'primary' ? undefined : lagOf(primary, document);
    return [
      peer.id, role, facts?.generation ? String(facts.generation) : '-', facts?.wal ?? '-', lag ? String(lag.bytes) : '-', lag ? (lag.seconds === null ? 'long' : lag.seconds.toFixed(1)) : '-',
      facts?.gate ?? '-', stateText(report),
    ];
  });
  const missing = peers.filter(({live}) => !live).map(({peer}) => peer.id);
  return [
    `generation ${state.generation}, begins at ${state.initWal}: ${writable(state, found)}`,
    ...(missing.length ? [`missing: ${missing.join(', ')}`] : []),
    ...(state.freeze ? [`frozen by ${state.freeze.by}: ${state.freeze.reason}`] : []),
    ...(state.oneNodeWriteMode ? ['one-node-write mode: what is written is on one machine'] : []),
    ...(state.promote ? [`${state.promote.by} wants ${state.promote.peer} to be primary`] : []),
    ...(view.rebuild.length ? [`to be rebuilt: ${view.rebuild.join(', ')}`] : []),
    '',
    table(['PEER', 'ROLE', 'GENERATION', 'WAL', 'LAG(bytes)', 'LAG(seconds)', 'GATE', 'STATE'], rows),
  ].join('\n');
}

function stateText({role, live, document, unanswered}: PeerReport): string {
  if (!live && !document) return 'missing';
  if (!document) return unanswered ?? 'silent';
  const {facts, last} = document;
  const trouble = last?.error ?? (last && last.step !== 'wait' ? last.reason : undefined);
  if (!facts || facts.process !== 'running') return [facts?.process ?? 'unknown', last?.error ?? last?.reason].filter(Boolean).join(': ');
  if (facts.gate === 'open') return 'serving';
  if (role === 'primary') return `closed: ${last?.error ?? last?.reason ?? 'unknown'}`;
  if (facts.diverged) return `diverged: ${last?.reason ?? ''}`;
  if (facts.receiving) return `streaming from ${facts.upstream ?? 'nobody'}`;
  return trouble ?? last?.reason ?? 'unknown';
}

export function historyText(entries: HistoryEntry[]): string {
  return table(['AT', 'GENERATION', 'PRIMARY', 'SYNC', 'ASYNC', 'DEPOSED', 'INITWAL', 'BY', 'REASON'], entries.map(({at, by, reason, state}) => [
    at, String(state.generation), state.primary.id, state.sync?.id ?? '-', state.async.map(({id}) => id).join(',') || '-', state.deposed.map(({id}) => id).join(',') || '-', state.initWal, by, reason,
  ]));
}

export function findingsText(findings: Finding[], {view, peers}: ClusterReport, transitions: number): string {
  const what = `generation ${view.state?.generation ?? 'none'}, ${peers.length} peers, ${transitions} transitions`;
  if (findings.length === 0) return `${what}: nothing is wrong`;
  return [`${what}:`, ...findings.map(({kind, rule, text}) => `${kind.padEnd(8)}  ${rule.padEnd(14)}  ${text}`)].join('\n');
}
