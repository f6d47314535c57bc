/**
 * What is wrong with a cluster, from what was collected of it: pure. Two kinds of answer:
 *
 *   broken     an invariant does not hold, or something acknowledges what it must not: somebody has to look, whatever the cluster does next
 *   degraded   everything that was promised holds, but a peer is missing, writes wait, or the next failure finds nobody to take over
 *
 * The facts are of different moments, so a cluster in the middle of a transition may seem to be what it is not: ask again and believe what stays (`lasting`).
 */
import type {ClusterView} from './coordination';
import {lsnDistance, reached} from './lsn';
import {isAdoption, type ClusterReport, type PeerReport} from './status';
import {illegalStep, roleOf, upstreamOf, type ClusterState, type HistoryEntry} from './state';

export interface Finding {
  kind: 'broken' | 'degraded';
  /** I1 to I6, or what else it is about; together with `subject` the same in every collection that finds it. */
  rule: string;
  /** A peer's id, 'history', 'state' or a role's or database's name. */
  subject: string;
  text: string;
}

/** `history` oldest first; read at the same version as the view. */
export interface Collected extends ClusterReport { history: HistoryEntry[] }

/** Weaker than the sync having flushed it. */
const WEAK_COMMIT = new Set(['off', 'local', 'remote_write', 'false', 'no', '0']);

export function verify(collected: Collected): Finding[] {
  const {view} = collected;
  if (!view.state) return [{kind: 'broken', rule: 'state', subject: 'state', text: 'there is no cluster in ZooKeeper'}];
  const state = view.state;
  return [
    ...ofHistory(collected.history, state), ...ofState(state, view), ...ofMissed(collected), ...ofGates(collected, state), ...ofPrimary(collected, state), ...ofStandbys(collected, state),
    ...ofDeposed(collected, state), ...ofSettings(collected),
  ];
}

/** What was found in every one of them. */
export function lasting(collections: Finding[][]): Finding[] {
  const same = (a: Finding, b: Finding): boolean => a.rule === b.rule && a.subject === b.subject && a.kind === b.kind;
  return (collections.at(-1) ?? []).filter((finding) => collections.every((findings) => findings.some((other) => same(other, finding))));
}

const broken = (rule: string, subject: string, text: string): Finding => ({kind: 'broken', rule, subject, text});
const degraded = (rule: string, subject: string, text: string): Finding => ({kind: 'degraded', rule, subject, text});
const when = (wrong: boolean, finding: () => Finding): Finding[] => (wrong ? [finding()] : []);

function ofHistory(history: HistoryEntry[], state: ClusterState): Finding[] {
  const findings: Finding[] = [];
  for (let at = 1; at < history.length; at += 1) {
    const [before, after] = [history[at - 1]!, history[at]!];
    // What an operator adopts follows from nothing.
    const wrong = isAdoption(after) ? undefined : illegalStep(before.state, after.state);
    if (wrong) findings.push(broken(/^I\d/.exec(wrong)?.[0] ?? 'history', 'history', `${wrong} (${after.at} by ${after.by}: ${after.reason})`));
  }
  const last = history.at(-1);
  if (!last) findings.push(broken('history', 'history', 'there is a state and no history of it'));
  else if (JSON.stringify(sorted(last.state)) !== JSON.stringify(sorted(state))) findings.push(broken('history', 'history', 'the state is not the one that the last entry of the history led to'));
  return findings;
}

/** Names in order, so that two spellings of one object are one. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, inner]) => [name, sorted(inner)]));
}

function ofState(state: ClusterState, view: ClusterView): Finding[] {
  const findings: Finding[] = [];
  const wrong = illegalStep(state, state);
  if (wrong) findings.push(broken('state', 'state', wrong));
  const [members, live] = [[state.primary, ...(state.sync ? [state.sync] : []), ...state.async, ...state.deposed], new Map(view.peers.map((peer) => [peer.id, peer]))];
  for (const [n, peer] of members.entries()) {
    const twin = members.slice(0, n).find((other) => other.host === peer.host && other.port === peer.port);
    if (twin) findings.push(broken('address', peer.id, `${peer.id} and ${twin.id} have one address, ${peer.host}:${peer.port}`));
    const found = live.get(peer.id);
    if (!found) findings.push(degraded('missing', peer.id, `${peer.id}, ${roleOf(state, peer.id)}, is not there`));
    else if (found.systemId !== null && state.systemId !== null && found.systemId !== state.systemId)
      findings.push(broken('systemId', peer.id, `${peer.id} has the data of another database (${found.systemId}, the cluster's is ${state.systemId})`));
    else if (found.host !== peer.host || found.port !== peer.port)
      findings.push(degraded('address', peer.id, `${peer.id} is at ${found.host}:${found.port}, and the state has ${peer.host}:${peer.port}`));
  }
  if (state.oneNodeWriteMode) findings.push(degraded('one-node-write', 'state', `writes are acknowledged by ${state.primary.id} alone`));
  else if (!state.sync) findings.push(degraded('no-sync', 'state', 'there is no sync: writes wait'));
  return findings;
}

/** An async that dies loses its place; it is missed all the same, until an operator says otherwise. */
function ofMissed({peers}: Collected): Finding[] {
  return peers.filter(({role, live}) => role === 'none' && live === null).map(({peer: {id}}) => degraded('missing', id, `${id} was a member and is not there (\`cetus db forget ${id}\` where it does not come back)`));
}

function ofGates({peers}: Collected, state: ClusterState): Finding[] {
  const open = peers.filter(({document}) => document?.facts?.gate === 'open');
  return [
    ...when(open.length > 1, () => broken('gate', 'state', `more than one peer lets clients in: ${open.map(({peer}) => peer.id).join(', ')}`)),
    ...open.flatMap(({peer, role, document}) => [
      ...when(role !== 'primary', () => broken('gate', peer.id, `${peer.id} lets clients in and is ${role === 'none' ? 'no member' : role}`)),
      ...when(document!.facts!.inRecovery === true, () => broken('gate', peer.id, `${peer.id} lets clients in and is in recovery`)),
      ...when(document!.leaseLeftMs <= 0, () => broken('lease', peer.id, `${peer.id} lets clients in, and its session with ZooKeeper may have ended`)),
      ...when(document!.facts!.generation > state.generation, () => broken('I1', peer.id, `${peer.id} serves generation ${document!.facts!.generation}, and the state is of ${state.generation}`)),
      ...when(document!.facts!.generation < state.generation, () => degraded('generation', peer.id, `${peer.id} still serves generation ${document!.facts!.generation} of ${state.generation}`)),
    ]),
  ];
}

const silent = ({peer, live, unanswered}: PeerReport): Finding[] => when(live !== null && unanswered !== null, () => degraded('silent', peer.id, unanswered!));

function ofPrimary({peers}: Collected, state: ClusterState): Finding[] {
  const primary = peers.find(({role}) => role === 'primary');
  if (!primary) return [];
  const {peer, document} = primary;
  const facts = document?.facts;
  if (!facts) return silent(primary);
  const rule = facts.acknowledger;
  const sync = facts.standbys.find(({id}) => id === state.sync?.id);
  const why = document.last?.error ?? document.last?.reason ?? 'no reason is known';
  return [
    ...when(facts.process !== 'running', () => degraded('down', peer.id, `Postgres of the primary ${peer.id} does not run: ${why}`)),
    ...when(rule.kind === 'alone' && !state.oneNodeWriteMode && facts.process === 'running', () => broken('I4', peer.id, `${peer.id} acknowledges alone, and one-node-write mode is off`)),
    ...when(rule.kind === 'peer' && rule.id !== state.sync?.id, () => broken('I4', peer.id, `${peer.id} acknowledges by ${(rule as {id: string}).id}, and the sync is ${state.sync?.id ?? 'nobody'}`)),
    ...when(facts.wal !== null && facts.inRecovery === false && !reached(facts.wal, state.initWal), () => broken('I5', peer.id, `the WAL of the primary ${peer.id} ends at ${facts.wal}, before ${state.initWal}`)),
    ...when(facts.gate === 'closed', () => degraded('closed', peer.id, `${peer.id} lets no clients in: ${why}`)),
    ...when(facts.gate === 'open' && rule.kind === 'nobody', () => degraded('waiting', peer.id, `writes wait at ${peer.id}: ${why}`)),
    ...when(state.sync !== null && facts.process === 'running' && sync?.state !== 'streaming', () => degraded('sync', state.sync!.id, `the sync ${state.sync!.id} does not stream (${sync?.state ?? 'not connected'}): writes wait`)),
  ];
}

function ofStandbys({peers}: Collected, state: ClusterState): Finding[] {
  const primary = peers.find(({role}) => role === 'primary')?.document?.facts;
  return peers.filter(({role}) => role === 'sync' || role === 'async').flatMap((report) => {
    const {peer, role, document} = report;
    const facts = document?.facts;
    if (!facts) return silent(report);
    const upstream = upstreamOf(state, peer.id)?.id ?? null;
    const ahead = primary?.inRecovery === false && primary.wal && facts.wal ? -lsnDistance(primary.wal, facts.wal) : 0n;
    return [
      ...when(facts.inRecovery === false, () => broken('role', peer.id, `${peer.id} is ${role} and out of recovery`)),
      ...when(facts.process !== 'running', () => degraded('down', peer.id, `Postgres of ${peer.id} does not run: ${document.last?.error ?? document.last?.reason ?? 'no reason is known'}`)),
      ...when(facts.diverged, () => degraded('diverged', peer.id, `${peer.id} cannot stream: its WAL has left that of ${facts.upstream ?? 'its upstream'}`)),
      ...when(facts.process === 'running' && facts.upstream !== upstream, () => degraded('upstream', peer.id, `${peer.id} streams from ${facts.upstream ?? 'nobody'}, and its place is behind ${upstream ?? 'nobody'}`)),
      ...when(facts.process === 'running' && !facts.diverged && !facts.receiving, () => degraded('receiving', peer.id, `${peer.id} receives nothing from ${facts.upstream ?? 'anybody'}`)),
      ...when(ahead > 0n && !facts.diverged && facts.receiving, () => broken('ahead', peer.id, `${peer.id} has ${ahead} bytes of WAL that the primary has not`)),
      ...when(role === 'sync' && facts.wal !== null && !reached(facts.wal, state.initWal), () => degraded('behind', peer.id, `the sync ${peer.id} ends at ${facts.wal}, before ${state.initWal}: it cannot take over yet`)),
    ];
  });
}

/** I6: whoever was taken over from has been restored since, or serves for nothing. */
function ofDeposed({peers, history}: Collected, state: ClusterState): Finding[] {
  const deposedIn = new Map<string, number>();
  for (const {state: then} of [...history.slice(Math.max(0, history.findLastIndex(isAdoption))), {state}]) for (const peer of then.deposed) deposedIn.set(peer.id, Math.max(peer.deposedIn, deposedIn.get(peer.id) ?? 0));
  return peers.flatMap(({peer, role, live, document}) => {
    const since = deposedIn.get(peer.id);
    if (since === undefined) return [];
    const restoredIn = document?.facts?.restoredIn ?? live?.restoredIn;
    const unrestored = restoredIn !== undefined && restoredIn < since;
    if (role === 'deposed') return when(unrestored && document?.facts?.receiving === true, () => broken('I6', peer.id, `${peer.id} was deposed in generation ${since}, and streams with data that were not restored since`));
    return when(unrestored && role !== 'none', () => broken('I6', peer.id, `${peer.id} was deposed in generation ${since} and is ${role} with data that were last restored in ${restoredIn}`));
  });
}

function ofSettings({peers}: Collected): Finding[] {
  const seen = new Set<string>();
  return peers.flatMap(({peer, document}) => (document?.overrides ?? []).flatMap(({role, database, name, value}) => {
    const own = role === '' && database === '';
    const weak = name === 'synchronous_commit' ? WEAK_COMMIT.has(value.toLowerCase()) : (name === 'fsync' || name === 'full_page_writes') && !/^(on|true|yes|1)$/i.test(value);
    const whose = own ? `the server of ${peer.id}` : [role && `role ${role}`, database && `database ${database}`].filter(Boolean).join(' in ');
    if (!weak || seen.has(`${whose} ${name}`)) return [];
    seen.add(`${whose} ${name}`);
    return [broken('settings', whose, `${whose} has ${name} = ${value}: its writes are acknowledged before they are safe`)];
  }));
}
