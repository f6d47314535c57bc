/** `docker ps`: which of an account's containers a query selects. Pure over the account's list, newest first. */
import {CetusError} from '../../base/errors';
import type {Container, ContainerStatus} from '../../schema/container';
import {acceptFilters, booleanFilter, has, idMatcher, invalidFilter, labelsMatch, nameMatcher, valuesOf} from '../filters';
import type {Filters, SeenContainer} from '../verbs';
import {parsePorts} from '../create/ports';
import {isUp} from './resolve';

const LIST_FILTERS = ['ancestor', 'before', 'expose', 'exited', 'health', 'id', 'isolation', 'is-task', 'label', 'name', 'network', 'publish', 'since', 'status', 'volume'];
const STATUSES: readonly ContainerStatus[] = ['created', 'running', 'paused', 'restarting', 'exited', 'removing', 'dead'];
const HEALTH = ['none', 'starting', 'healthy', 'unhealthy'];

/** What the pure part cannot know. */
export interface Lookups {
  /** Image ids that the `ancestor` values name, their descendants included. */
  ancestors: ReadonlySet<string> | undefined;
  /** Of `before` and `since`, resolved. */
  before: Container | undefined;
  since: Container | undefined;
}

export function checkListFilters(filters: Filters): void {
  acceptFilters(filters, LIST_FILTERS);
  for (const status of valuesOf(filters, 'status')) if (!(STATUSES as readonly string[]).includes(status)) throw invalidFilter(`status=${status}`);
  for (const health of valuesOf(filters, 'health')) if (!HEALTH.includes(health)) throw new CetusError('invalid', `unrecognised filter value for health: ${health}`);
  for (const code of valuesOf(filters, 'exited')) if (!/^-?\d+$/.test(code)) throw invalidFilter('exited', [code]);
}

/** Ports as the filters `publish` and `expose` write them: "80", "80/tcp", "8000-8010/udp". */
function portTest(values: readonly string[]): (protocol: string, port: number) => boolean {
  const ranges = values.map(parsePorts);
  return (protocol, port) => ranges.some((r) => r.protocol === protocol && r.ports[0]! <= port && port <= r.ports.at(-1)!);
}

export function selectContainers(all: readonly SeenContainer[], query: {all: boolean; limit?: number; filters: Filters}, lookups: Lookups): SeenContainer[] {
  const {filters} = query;
  const statuses = valuesOf(filters, 'status');
  const labels = valuesOf(filters, 'label');
  const names = valuesOf(filters, 'name');
  // Names are stored without the slash; people write both.
  const nameMatches = nameMatcher({name: names.map((n) => n.replace(/^(\^?)\//, '$1'))}, 'name');
  const idMatches = idMatcher(filters, 'id');
  const healths = valuesOf(filters, 'health');
  const exited = valuesOf(filters, 'exited').map(Number);
  const networks = valuesOf(filters, 'network');
  const volumes = valuesOf(filters, 'volume');
  const isTask = booleanFilter(filters, 'is-task');
  const publish = has(filters, 'publish') ? portTest(valuesOf(filters, 'publish')) : undefined;
  const expose = has(filters, 'expose') ? portTest(valuesOf(filters, 'expose')) : undefined;
  // As the Engine: asking for a status, an exit code, or a number of containers means stopped ones too.
  const limited = query.limit !== undefined && query.limit > 0;
  const everything = query.all || limited || statuses.length > 0 || exited.length > 0 || lookups.before !== undefined || lookups.since !== undefined;

  const selects = (c: SeenContainer): boolean => {
    // What ran when its node was last heard of is what somebody who asks for running ones must hear of.
    if (!everything && !isLive(c.lost?.was ?? c.status)) return false;
    if (statuses.length > 0 && !statuses.includes(c.status)) return false;
    if (!idMatches(c.id) || !nameMatches(c.name) || !labelsMatch(labels, c.labels)) return false;
    if (lookups.before && c.createdAtNs >= lookups.before.createdAtNs) return false;
    if (lookups.since && c.createdAtNs <= lookups.since.createdAtNs) return false;
    if (lookups.ancestors && !lookups.ancestors.has(c.imageId)) return false;
    if (exited.length > 0 && !((c.status === 'exited' || c.status === 'dead') && exited.includes(c.observation.exitCode))) return false;
    if (healths.length > 0 && !healths.includes(c.observation.health?.status ?? 'none')) return false;
    if (networks.length > 0 && !Object.entries(c.networks).some(([name, n]) => networks.some((v) => v === name || n.networkId.startsWith(v)))) return false;
    if (volumes.length > 0 && !c.spec.mounts.some((m) => volumes.includes(m.destination) || (m.type === 'volume' && volumes.includes(m.name)) || (m.type === 'bind' && volumes.includes(m.source)))) return false;
    if (isTask === true) return false;
    if (!publish && !expose) return true;
    // As the Engine: a port counts while the container runs, `publish` means its number on the host, and one of the two filters is enough.
    return isUp(c) && ((publish !== undefined && c.publishedPorts.some((p) => publish(p.protocol, p.hostPort)))
      || (expose !== undefined && exposedPorts(c).some(([protocol, port]) => expose(protocol, port))));
  };

  const found: SeenContainer[] = [];
  for (const container of all) {
    if (!selects(container)) continue;
    found.push(container);
    if (limited && found.length >= query.limit!) break;
  }
  return found;
}

const isLive = (status: ContainerStatus): boolean => status === 'running' || status === 'paused' || status === 'restarting';

function exposedPorts(c: Container): [string, number][] {
  return Object.keys(c.spec.config.ExposedPorts ?? {}).flatMap((text) => {
    const {protocol, ports} = parsePorts(text);
    return ports.map((port): [string, number] => [protocol, port]);
  });
}
