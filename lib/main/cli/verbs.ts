/** The operator's verbs: thin clients of lib/admin's API. `--json` prints the API's own answer. */
import type {Command} from 'commander';
import {shortId} from '../../base/ids';
import type {SeenContainer} from '../../datacenter/verbs';
import type {Job} from '../../schema/job';
import type {IngressRow, Volume} from '../../schema/objects';
import type {PlacementDecision, Rejection} from '../../schema/placement';
import {adminClient, type Call} from './client';
import {addNodeVerbs} from './nodes';
import {age, between, bytes, cpus, steps, table} from './print';

interface Flags { admin?: string; json?: boolean; data: string }
type PlacedVolume = Volume & {node?: string};
interface Stored { bucket: string; key: string; value: unknown; etag: string; mtime: number }

/** lib/admin's, where no limit is asked for. */
const DEFAULT_LIMIT = 100;

const write = (text: string): void => void process.stdout.write(`${text}\n`);
const queryOf = (values: Record<string, unknown>): string => {
  const query = new URLSearchParams(Object.entries(values).filter(([, v]) => v !== undefined && v !== '').map(([k, v]): [string, string] => [k, String(v)])).toString();
  return query ? `?${query}` : '';
};
const part = (value: string): string => encodeURIComponent(value);

export function addOperatorVerbs(program: Command, clientFor: (flags: Flags) => Call = (flags) => adminClient(flags.admin ?? process.env.CETUS_ADMIN, flags.data)): void {
  /** A verb with what all of them share; `show` prints the answer for people. */
  const verb = <T>(parent: Command, usage: string, description: string, ask: (call: Call, args: string[], flags: Flags & Record<string, unknown>) => Promise<T>, show: (answer: T, flags: Flags & Record<string, unknown>) => void): Command =>
    parent.command(usage).description(description)
      .option('--json', 'the API\'s own answer')
      .option('--admin <where>', 'the operator\'s API: a socket\'s path or http://HOST:PORT (default: the socket in --data, or CETUS_ADMIN)')
      .action(async (...given: unknown[]) => {
        const command = given[given.length - 1] as Command;
        const flags = command.optsWithGlobals<Flags & Record<string, unknown>>();
        const answer = await ask(clientFor(flags), command.args, flags);
        if (flags.json) write(JSON.stringify(answer, null, 2));
        else show(answer, flags);
      });

  addNodeVerbs(program, verb);

  verb(program, 'ps', 'containers of all accounts', (call, _args, f) => call<SeenContainer[]>('GET', `/v1/containers${queryOf({status: f.all ? undefined : 'running', account: f.account, node: f.node, limit: f.limit})}`), (containers, f) => {
    const head = ['CONTAINER', 'NAME', 'IMAGE', 'STATUS', 'AGE'];
    // What is reserved, not what the container may reach: of a limit on CPUs a part is.
    const wide = ['ACCOUNT', 'NODE', 'RESERVED MEMORY', 'RESERVED CPUS', 'ADDRESSES'];
    write(table(f.wide ? [...head, ...wide] : head, containers.map((c) => {
      const row = [shortId(c.id), c.name, c.imageReference, c.lost ? `${c.lost.was}, lost` : c.status, age(c.createdAt, Date.now())];
      return f.wide ? [...row, c.account, c.lost ? `${c.node} (${c.lost.liveness})` : c.node, bytes(c.reservation.memoryBytes), cpus(c.reservation.nanoCpus), c.attachments.map((a) => a.address).join(',') || '-'] : row;
    })));
  }).option('-w, --wide', 'with account, node, reservation and addresses').option('-a, --all', 'not only running ones')
    .option('--account <id>').option('--node <name>').option('--limit <n>', 'at most so many');

  const volume = program.command('volume').description('volumes of all accounts');
  verb(volume, 'ls', 'every volume, and on which node its files are', (call, _args, f) => call<PlacedVolume[]>('GET', `/v1/volumes${queryOf({account: f.account, node: f.node, limit: f.limit})}`), (volumes) => {
    write(table(['NAME', 'ACCOUNT', 'NODE', 'AGE'], volumes.map((v) => [v.name, v.account, v.node ?? (v.nodeId === '' ? '(not used yet)' : v.nodeId), age(v.createdAt, Date.now())])));
  }).option('--account <id>').option('--node <name>', 'only of this node').option('--limit <n>', 'at most so many');

  verb(program, 'ingress', 'published ports at the endpoints: how many are open at each, and which cannot be', (call) => call<IngressRow[]>('GET', '/v1/ingresses'), (rows) => {
    write(table(['ENDPOINT', 'DUTY', 'OPEN', 'REFUSED', 'ADDRESSES'], rows.map((r) => [r.endpoint, r.duty, String(r.open), String(r.refused.length), r.addresses.join(',') || '-'])));
    for (const {endpoint, refused} of rows) for (const r of refused) write(`${endpoint}: ${r.address}:${r.port}/${r.protocol} of ${shortId(r.containerId)}: ${r.reason}`);
  });

  const job = program.command('job').description('what Cetus does and did');
  verb(job, 'ls', 'jobs, newest first', (call, _args, f) => call<Job[]>('GET', `/v1/jobs${queryOf({execution: f.execution, target: f.target, workflow: f.workflow, limit: f.limit})}`), (jobs) => {
    write(table(['JOB', 'CHAIN', 'TARGET', 'EXECUTION', 'TOOK', 'AGE', 'ERROR'],
      jobs.map((j) => [j.id, j.workflow, target(j.target), j.execution, between(j.startedAt, j.endedAt), age(j.createdAt, Date.now()), j.error?.message ?? ''])));
  }).option('--execution <state>', 'queued, running, unwinding, succeeded, failed, canceled or stuck').option('--target <target>', 'such as container/ID').option('--workflow <chain>').option('--limit <n>', 'at most so many');
  verb(job, 'show <job>', 'one job: steps, timings, placement reasons', (call, [id]) => call<Job>('GET', `/v1/jobs/${part(id)}`), showJob);
  verb(job, 'cancel <job>', 'ask for it to be canceled', (call, [id]) => call<Job>('POST', `/v1/jobs/${part(id)}/cancel`), (j) => write(`${j.id} ${j.execution}; cancel requested`));
  verb(job, 'retry <job>', 'try the unwinding of a stuck job again', (call, [id]) => call<Job>('POST', `/v1/jobs/${part(id)}/retry`), (j) => write(`${j.id} ${j.execution}`));

  verb(program, 'why <container>', 'where a container was placed and why, or why it was refused', (call, [name]) => call<{container: SeenContainer | null; job: Job | null}>('GET', `/v1/containers/${part(name)}/why`), ({container, job: made}) => {
    if (container) write(whereabouts(container));
    const decision = container?.placement ?? (made ? decisionIn(made) : undefined);
    if (decision) showDecision(decision);
    else if (made?.error) showRefusal(made);
    if (made) write(`job ${made.id} ${made.workflow} ${made.execution}${made.endedAt ? ` in ${between(made.startedAt, made.endedAt)}` : ''}`);
  });

  const store = program.command('store').description('stored objects');
  verb(store, 'ls', 'every bucket', (call) => call<{name: string; version: number; objects: number}[]>('GET', '/v1/store'), (buckets) =>
    write(table(['BUCKET', 'VERSION', 'OBJECTS'], buckets.map((b) => [b.name, String(b.version), String(b.objects)]))));
  verb(store, 'find <bucket> [filter]', 'objects that match, one JSON line each', (call, [bucket, filter], f) => call<Stored[]>('GET', `/v1/store/${part(bucket)}${queryOf({filter, sort: f.sort, limit: f.limit, offset: f.offset})}`), (found, f) => {
    for (const object of found) write(JSON.stringify(object));
    // Not among the lines, which are for programs.
    if (!f.limit && found.length === DEFAULT_LIMIT) process.stderr.write(`the first ${DEFAULT_LIMIT}; --limit and --offset show more\n`);
  }).option('--sort <field>', 'with - in front, descending').option('--limit <n>').option('--offset <n>');
  verb(store, 'get <bucket> <key>', 'one object', (call, [bucket, key]) => call<Stored>('GET', `/v1/store/${part(bucket)}/${part(key)}`), (object) => write(JSON.stringify(object, null, 2)));
}

function whereabouts({id, name, status, node, lost}: SeenContainer): string {
  const called = `${name} (${shortId(id)})`;
  if (!lost) return `${called} is ${status} on ${node}`;
  const then = lost.goesElsewhere ? `it is started on another node ${lost.liveness === 'fenced' ? 'as soon as one can take it' : 'once this one is fenced'}`
    : `it stays there${lost.stays === undefined ? '' : `: ${lost.stays}`}`;
  return `${called} is lost: ${node} is ${lost.liveness} since ${lost.since}, ${lost.reason}; it was ${lost.was}, and ${then}`;
}

/** Ids are long and the kind in front says enough. */
const target = (text: string): string => text.replace(/[0-9a-f]{64}/g, shortId);

function decisionIn(made: Job): PlacementDecision | undefined {
  for (const step of made.steps) {
    const found = (step.output as {placement?: PlacementDecision} | undefined)?.placement;
    if (found?.nodeId) return found;
  }
  return undefined;
}

function showJob(j: Job): void {
  write(`${j.id}  ${j.workflow} v${j.version}  ${j.execution}${j.cancelRequested ? '  (cancel requested)' : ''}
target ${j.target}   account ${j.account}   request ${j.requestId}
created ${j.createdAt}   took ${between(j.startedAt, j.endedAt) || '-'}${j.lease ? `   runner ${j.lease.runner}, epoch ${j.lease.epoch}` : ''}`);
  if (j.error) write(`error  ${j.error.kind}: ${j.error.message}`);
  write(steps(j.steps));
  const decision = decisionIn(j);
  if (decision) showDecision(decision);
  else if (j.error?.info?.rejections) showRefusal(j);
}

function showDecision(d: PlacementDecision): void {
  write(`placed on ${d.node}, ${d.considered} node${d.considered === 1 ? '' : 's'} considered`);
  write(table(['NODE', 'SCORE', 'SPREAD', 'LABELS', 'IMAGE', 'UTILIZATION', 'HINTS'], [d.score, ...d.alternatives].map((s) => [s.node,
    ...[s.total, s.parts.spreadAccount, s.parts.spreadLabel, s.parts.imageLocality, s.parts.utilization, s.parts.soft].map((n) => String(Math.round(n * 1000) / 1000))])));
  showRejections(d.rejections);
}

function showRefusal(failed: Job): void {
  write(`refused: ${failed.error!.message}`);
  showRejections((failed.error!.info?.rejections as Rejection[] | undefined) ?? []);
}

function showRejections(rejections: Rejection[]): void {
  for (const r of rejections) write(`  ${r.filter} left out ${r.count} node${r.count === 1 ? '' : 's'}: ${r.detail} (${r.examples.join(', ')}${r.count > r.examples.length ? ', ...' : ''})`);
}
