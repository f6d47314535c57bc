/** `cetus node`: the fleet's members, for the operator. Thin clients of lib/admin's API, as all verbs here. */
import type {Command} from 'commander';
import type {NodeDetail, RemovedNode} from '../../datacenter/verbs';
import type {TokenRecord} from '../../schema/authority';
import type {Node} from '../../schema/node';
import type {Call} from './client';
import {durationMs, pairs} from './pairs';
import {age, bytes, cpus, duration, table} from './print';

type Flags = Record<string, unknown>;
/** As verbs.ts makes them. */
export type AddVerb = <T>(parent: Command, usage: string, description: string, ask: (call: Call, args: string[], flags: Flags) => Promise<T>, show: (answer: T, flags: Flags) => void) => Command;
type Token = Omit<TokenRecord, 'secretHash'>;

const write = (text: string): void => void process.stdout.write(`${text}\n`);
const at = (node: string, verb = ''): string => `/v1/nodes/${encodeURIComponent(node)}${verb}`;
const collect = (value: string, before: string[] | undefined): string[] => [...(before ?? []), value];

export function addNodeVerbs(program: Command, verb: AddVerb): void {
  const node = program.command('node').description('compute nodes: which there are, what they are told, how they come and go');
  verb(node, 'ls', 'every node', (call) => call<Node[]>('GET', '/v1/nodes'), (nodes) => {
    write(table(['NAME', 'LIVENESS', 'AVAILABILITY', 'CPUS', 'MEMORY', 'KERNEL', 'CONTAINERD', 'REASON'],
      nodes.map((n) => [n.name, n.liveness, n.availability, String(n.facts.cpus), bytes(n.facts.memoryBytes), n.facts.kernelVersion, n.facts.containerdVersion, reasonOf(n)])));
  });
  verb(node, 'inspect <node>', 'one node: what it is and does, and where it differs from the store', (call, [name]) => call<NodeDetail>('GET', at(name)), (detail) => write(inspected(detail)));
  verb(node, 'label <node> <change...>', 'KEY=VALUE sets a label, KEY- takes it away', (call, [name, ...changes]) => call<Node>('POST', at(name, '/labels'), labelChange(changes)),
    (n) => write(`${n.name}: ${words(n.labels) || 'no labels of its operator'}`));
  verb(node, 'cordon <node>', 'give it no new containers', (call, [name], f) => call<Node>('POST', at(name, '/cordon'), because(f)), (n) => write(`${n.name} is cordoned`)).option('--reason <text>');
  verb(node, 'uncordon <node>', 'give it containers again', (call, [name]) => call<Node>('POST', at(name, '/uncordon')), (n) => write(`${n.name} is active`));
  verb(node, 'drain <node>', 'give it no new containers, and move those that may', (call, [name], f) => call<Node>('POST', at(name, '/drain'), because(f)), (n) => write(`${n.name} is draining`)).option('--reason <text>');
  verb(node, 'rm <node>', 'a member no more: its certificates are revoked', (call, [name], f) => call<RemovedNode>('DELETE', at(name, f.force ? '?force=true' : '')), (gone) => write(removed(gone)))
    .option('--force', 'also one that lives, or has containers or volumes, which are lost');

  verb(node, 'token', 'a token with which one machine joins', (call, _args, f) => call<{token: string; url: string} & Token>('POST', '/v1/tokens', {
    ...(f.ttl === undefined ? {} : {ttlSeconds: Math.round(durationMs(String(f.ttl)) / 1000)}), labels: pairs((f.label as string[] | undefined) ?? []),
  }), (made) => {
    // The token alone on standard output, for scripts.
    write(made.token);
    process.stderr.write(`good for ${duration(made.expiresAtMs - Date.now())}, for one machine; there:\n\n    cetus agent --join ${made.url} --token ${made.token}\n\n`);
  }).option('--ttl <duration>', 'how long it is good: 30m, 1h, 7d (default: 1h)').option('--label <label>', 'KEY=VALUE of the node that comes with it; may be repeated', collect);
  verb(node, 'tokens', 'the tokens there are, and who came with them', (call) => call<Token[]>('GET', '/v1/tokens'), (tokens) => {
    write(table(['TOKEN', 'STATE', 'AGE', 'LABELS'], tokens.map((t) => [t.id, stateOf(t), age(t.createdAt, Date.now()), words(t.labels)])));
  });
  verb(node, 'token-rm <token>', 'a token is good no more', (call, [id]) => call<{id: string}>('DELETE', `/v1/tokens/${encodeURIComponent(id)}`), ({id}) => write(`${id} is good no more`));
}

const because = (f: Flags): object => (f.reason === undefined ? {} : {reason: f.reason});
const words = (labels: Record<string, string>): string => Object.entries(labels).map(([k, v]) => `${k}=${v}`).join(' ');
const stateOf = (t: Token): string => (t.used ? `used by ${t.used.nodeId}` : t.expiresAtMs <= Date.now() ? 'expired' : `good for ${duration(t.expiresAtMs - Date.now())}`);
/** Why it takes no containers is more to the point than that heartbeats arrive. */
const reasonOf = (n: Node): string => [n.availabilityReason ?? '', n.availabilityReason && n.liveness === 'alive' ? '' : n.livenessReason].filter(Boolean).join('; ');

/** "rack=r1" adds, "rack-" removes, as kubectl has it. */
export function labelChange(changes: string[]): {add: Record<string, string>; remove: string[]} {
  const remove = changes.filter((c) => !c.includes('=') && c.endsWith('-'));
  return {add: pairs(changes.filter((c) => !remove.includes(c))), remove: remove.map((c) => c.slice(0, -1))};
}

function removed(gone: RemovedNode): string {
  const lines = [`${gone.name} (${gone.id}) is a member no more`];
  if (gone.containers.length) lines.push(`lost with it, ${gone.containers.length} container${gone.containers.length === 1 ? '' : 's'}:`, ...gone.containers.map((c) => `  ${c.account}/${c.name}, ${c.status}`));
  if (gone.volumes.length) lines.push(`lost with it, ${gone.volumes.length} volume${gone.volumes.length === 1 ? '' : 's'}:`, ...gone.volumes.map((v) => `  ${v.account}/${v.name}`));
  return lines.join('\n');
}

function inspected({node: n, reserved, containers, running, certificates, staying}: NodeDetail): string {
  const {facts: f} = n;
  const rows: [string, string][] = [
    ['node', `${n.name}  ${n.id}`],
    ['liveness', `${n.liveness} for ${age(n.livenessAt, Date.now())}: ${n.livenessReason}`],
    ['availability', `${n.availability}${n.availabilityAt && n.availability !== 'active' ? ` for ${age(n.availabilityAt, Date.now())}` : ''}${n.availabilityReason ? `: ${n.availabilityReason}` : ''}${n.removing ? ', being removed' : ''}`],
    ['labels', words({...f.labels, ...n.labels}) || '-'],
    ['machine', `${f.platform}, ${f.cpus} cpus, ${bytes(f.memoryBytes)} memory, ${bytes(f.diskBytes)} disk, ${f.pids} pids`],
    ['system', `${f.operatingSystem}, kernel ${f.kernelVersion}, cgroup v${f.cgroupVersion}`],
    ['software', `containerd ${f.containerdVersion}, runc ${f.runcVersion}, ${f.snapshotter}, agent ${f.agentVersion}${f.builds ? ', builds images' : ''}`],
    ['reached at', `${f.agentUrl}${f.underlay ? `, underlay ${f.underlay.address}` : ''}`],
    ['containers', `${containers}, ${running} of them running`],
    ['reserved', `${bytes(reserved.memoryBytes)} memory, ${cpus(reserved.nanoCpus)} cpus, ${bytes(reserved.diskBytes)} disk, ${reserved.pids} pids`],
    ['joined', `${n.joinedAt}, boot generation ${f.bootGeneration}`],
    ...certificates.map((c): [string, string] => ['certificate', `${c.serial} until ${c.notAfter}`]),
    ...(n.claim ? [['claimed', `at ${n.claim.at} by ${n.claim.nodeId}, with a good token and another key, and refused: ${n.claim.message}`] as [string, string]] : []),
    ['drift', n.drift?.findings.length ? `found at ${n.drift.at}` : 'none'],
  ];
  return [...rows.map(([name, text]) => `${name.padEnd(14)}${text}`),
    ...staying.map((c) => `  stays ${c.name}: ${c.reason}`),
    ...(n.drift?.findings ?? []).map((d) => `  ${d.kind} ${d.name || d.id}: ${d.detail}${d.done ? `; ${d.done}` : '; nothing was done about it'}`)].join('\n');
}
