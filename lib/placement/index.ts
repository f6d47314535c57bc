/**
 * The maintained index (README.md): `place` answers exactly the best score and looks at few nodes. Called by lib/jobs, fed from the change
 * feed. Not safe to change while `place` runs, which cannot happen: both are synchronous.
 */
import {CetusError} from '../base/errors';
import type {NodeScore, PlacementDecision, PlacementRequest, Rejection} from '../schema/placement';
import {type Expression, imageAliases, parseExpression} from './affinity';
import {noSpace, Rejections} from './explain';
import {type Asked, rejects} from './filters/filters';
import {holds} from './filters/expression';
import {refusedByAll} from './filters/hardware';
import {portKey} from './filters/port';
import {bump, newEntry, type NodeEntry} from './node-entry';
import type {ContainerView, NodeView, PlacementIndex} from './placement';
import {freeLevel, LEVELS, spread, spreadGroup, totalOf, utilizationScore, WEIGHT} from './rank';
import {Tally} from './tally';

export interface PlacementConfig {
  /** Fleets up to this size are looked at wholly, so that a decision's rejections count every node. Default 256. */
  exhaustiveNodes?: number;
  /** Candidate sets up to this size are walked instead of the fleet. Default 1024. */
  smallSet?: number;
}

export interface ExplainingIndex extends PlacementIndex {
  /** True counts over the whole fleet; work proportional to it. */
  explain(request: PlacementRequest): Rejection[];
}

const KEPT = 5;
const MAX_EXPRESSIONS = 64;

class Index implements ExplainingIndex {
  private readonly entries = new Map<string, NodeEntry>();
  private readonly nodesByName = new Map<string, NodeEntry>();
  private readonly nodesByLabel = new Map<string, Set<NodeEntry>>();
  private readonly levels: Set<NodeEntry>[] = Array.from({length: LEVELS + 1}, () => new Set());
  private readonly unschedulable = {liveness: new Map<string, Set<NodeEntry>>(), cordon: new Map<string, Set<NodeEntry>>()};
  private known = 0;
  private schedulable = 0;
  private readonly containers = new Map<string, ContainerView>();
  private readonly containersByName = new Map<string, Set<ContainerView>>();
  private readonly accountTallies = new Map<string, Tally>();
  private readonly groupTallies = new Map<string, Tally>();
  private readonly imageNodes = new Map<string, Set<NodeEntry>>();

  constructor(private readonly exhaustiveNodes: number, private readonly smallSet: number) {}

  putNode(node: NodeView): void {
    const entry = this.entry(node.id);
    this.leave(entry);
    entry.view = {...node, labels: {...node.labels}, capacity: {...node.capacity}, reserved: {...node.reserved}};
    this.known += 1;
    this.nodesByName.set(node.name, entry);
    for (const [key, value] of Object.entries(node.labels)) addTo(this.nodesByLabel, labelKey(key, value), entry);
    if (node.liveness !== 'alive') {
      addTo(this.unschedulable.liveness, node.liveness, entry);
    } else if (node.availability !== 'active') {
      addTo(this.unschedulable.cordon, node.availability, entry);
    } else {
      entry.level = freeLevel(node.capacity, node.reserved);
      this.levels[entry.level]!.add(entry);
      this.schedulable += 1;
      for (const [account, count] of entry.accounts) tally(this.accountTallies, account, 0, count);
      for (const [group, count] of entry.groups) tally(this.groupTallies, group, 0, count);
    }
  }

  removeNode(id: string): void {
    const entry = this.entries.get(id);
    if (!entry) return;
    this.leave(entry);
    this.forgetIfEmpty(entry);
  }

  private leave(entry: NodeEntry): void {
    const {view} = entry;
    if (!view) return;
    this.known -= 1;
    if (this.nodesByName.get(view.name) === entry) this.nodesByName.delete(view.name);
    for (const [key, value] of Object.entries(view.labels)) dropFrom(this.nodesByLabel, labelKey(key, value), entry);
    if (entry.level >= 0) {
      this.levels[entry.level]!.delete(entry);
      this.schedulable -= 1;
      for (const [account, count] of entry.accounts) tally(this.accountTallies, account, count, 0);
      for (const [group, count] of entry.groups) tally(this.groupTallies, group, count, 0);
    } else if (view.liveness !== 'alive') {
      dropFrom(this.unschedulable.liveness, view.liveness, entry);
    } else {
      dropFrom(this.unschedulable.cordon, view.availability, entry);
    }
    entry.level = -1;
    entry.view = undefined;
  }

  putContainer(container: ContainerView): void {
    this.removeContainer(container.id);
    const kept: ContainerView = {...container, labels: {...container.labels}, ports: container.ports.map((p) => ({...p}))};
    this.containers.set(kept.id, kept);
    addTo(this.containersByName, nameKey(kept), kept);
    const entry = this.entry(kept.nodeId);
    entry.containers.add(kept);
    this.count(entry, kept, 1);
  }

  removeContainer(id: string): void {
    const kept = this.containers.get(id);
    if (!kept) return;
    this.containers.delete(id);
    dropFrom(this.containersByName, nameKey(kept), kept);
    const entry = this.entry(kept.nodeId);
    entry.containers.delete(kept);
    this.count(entry, kept, -1);
    this.forgetIfEmpty(entry);
  }

  private count(entry: NodeEntry, container: ContainerView, delta: 1 | -1): void {
    const account = bump(entry.accounts, container.account, delta);
    if (entry.level >= 0) tally(this.accountTallies, container.account, account.before, account.after);
    const group = spreadGroup(container.account, container.labels);
    if (group !== undefined) {
      const counts = bump(entry.groups, group, delta);
      if (entry.level >= 0) tally(this.groupTallies, group, counts.before, counts.after);
    }
    for (const {protocol, hostIp, hostPort} of container.ports) {
      if (hostPort === 0) continue;
      const key = portKey(protocol, hostPort);
      let holders = entry.ports.get(key);
      if (!holders) entry.ports.set(key, (holders = new Map()));
      bump(holders, hostIp, delta);
      if (holders.size === 0) entry.ports.delete(key);
    }
  }

  putImage(nodeId: string, imageId: string, references: string[]): void {
    const entry = this.entry(nodeId);
    entry.images.set(imageId, imageAliases(imageId, references));
    addTo(this.imageNodes, imageId, entry);
  }

  removeImage(nodeId: string, imageId: string): void {
    const entry = this.entries.get(nodeId);
    if (!entry?.images.delete(imageId)) return;
    dropFrom(this.imageNodes, imageId, entry);
    this.forgetIfEmpty(entry);
  }

  private entry(id: string): NodeEntry {
    let entry = this.entries.get(id);
    if (!entry) this.entries.set(id, (entry = newEntry(id)));
    return entry;
  }

  private forgetIfEmpty(entry: NodeEntry): void {
    if (!entry.view && entry.containers.size === 0 && entry.images.size === 0) this.entries.delete(entry.id);
  }

  place(request: PlacementRequest): PlacementDecision {
    const asked = this.understand(request);
    const walk = new Walk(asked, (entry) => this.score(entry, asked));
    const only = this.onlyCandidates(asked);
    if (only) for (const entry of only) walk.look(entry);
    else this.walkLevels(walk, asked);
    const [best, ...alternatives] = walk.best;
    const hopeless = best ? undefined : refusedByAll(this.views(), request.hardware);
    if (hopeless) throw hopeless;
    if (!best && request.ports.some((p) => p.hostPort !== 0)) return this.placeOnTakenPort(request, walk.rejections);
    if (!best) {
      // A refusal is worth its price: it counts truly, over the whole fleet.
      const {rejections, roomy} = this.countRejections(asked);
      throw noSpace(asked, rejections, roomy, this.known);
    }
    const rejections = walk.rejections;
    if (!walk.sawAll) for (const filter of ['liveness', 'cordon'] as const)
      for (const [detail, nodes] of this.unschedulable[filter]) rejections.set(filter, detail, nodes.size, namesOf(nodes));
    return {nodeId: best.nodeId, node: best.node, considered: walk.considered, score: best, alternatives: alternatives.slice(0, KEPT - 1), rejections: rejections.list()};
  }

  /** Free nowhere: the container may be created, as with the Engine; it is its start that needs the port, and says so. */
  private placeOnTakenPort(request: PlacementRequest, before: Rejections): PlacementDecision {
    const decision = this.place({...request, ports: []});
    return {...decision, rejections: [...before.list().filter((r) => r.filter === 'port'), ...decision.rejections]};
  }

  explain(request: PlacementRequest): Rejection[] {
    return this.countRejections(this.understand(request)).rejections;
  }

  private views(): NodeView[] {
    return [...this.entries.values()].flatMap(({view}) => view ?? []);
  }

  private countRejections(asked: Asked): {rejections: Rejection[]; roomy: NodeView[]} {
    const rejections = new Rejections();
    const roomy: NodeView[] = [];
    for (const entry of this.entries.values()) {
      const rejection = entry.view && rejects(entry, entry.view, asked);
      if (!rejection) continue;
      rejections.add(rejection.filter, rejection.detail, entry.view!.name);
      if (rejection.filter === 'capacity') roomy.push(entry.view!);
    }
    return {rejections: rejections.list(), roomy};
  }

  private understand(request: PlacementRequest): Asked {
    if (request.expressions.length > MAX_EXPRESSIONS) throw new CetusError('invalid', `more than ${MAX_EXPRESSIONS} placement expressions`);
    const expressions = request.expressions.map(parseExpression).map((e) => ({...e, matching: this.matching(e, request.account)}));
    const [pinned, ...more] = request.pinnedNodes;
    const elsewhere = more.find((p) => p.nodeId !== pinned!.nodeId);
    if (elsewhere)
      throw new CetusError('invalid', `volumes ${pinned!.volumeName} and ${elsewhere.volumeName} are on different nodes (${this.nameOf(pinned!.nodeId)} and ${this.nameOf(elsewhere.nodeId)}): one container cannot use both`);
    return {request, pinned, hard: expressions.filter((e) => !e.soft), soft: expressions.filter((e) => e.soft)};
  }

  private nameOf(nodeId: string): string {
    return this.entries.get(nodeId)?.view?.name ?? nodeId;
  }

  /** A small set outside of which nothing can satisfy the hard conditions, or undefined where there is none. */
  private onlyCandidates(asked: Asked): Iterable<NodeEntry> | undefined {
    let smallest: ReadonlySet<NodeEntry> | undefined;
    const offer = (set: ReadonlySet<NodeEntry> | undefined): void => {
      if (set && (!smallest || set.size < smallest.size)) smallest = set;
    };
    if (asked.pinned) offer(setOf(this.entries.get(asked.pinned.nodeId)));
    for (const expression of asked.hard) if (!expression.negated) offer(expression.matching);
    // Small fleets are walked wholly, so that the decision's counts cover every node.
    if (smallest && this.known > this.exhaustiveNodes && smallest.size <= this.smallSet) return smallest;
    return undefined;
  }

  /** The nodes on which a plain word is found; undefined where only looking tells. */
  private matching(expression: Expression, account: string): ReadonlySet<NodeEntry> | undefined {
    const {exact} = expression.pattern;
    if (exact === undefined) return undefined;
    if (expression.kind === 'constraint') {
      if (expression.key === 'node') return setOf(this.nodesByName.get(exact), this.entries.get(exact));
      return this.nodesByLabel.get(labelKey(expression.key, exact)) ?? new Set();
    }
    if (expression.key === 'container') {
      const byId = this.containers.get(exact);
      const nodes = [...(this.containersByName.get(JSON.stringify([account, exact])) ?? []), ...(byId?.account === account ? [byId] : [])].map((c) => c.nodeId);
      return setOf(...nodes.map((id) => this.entries.get(id)));
    }
    return undefined;
  }

  private walkLevels(walk: Walk, asked: Asked): void {
    const {request} = asked;
    const account = spread(WEIGHT.spreadAccount, this.accountTallies.get(request.account)?.least(this.schedulable) ?? 0);
    const group = spreadGroup(request.account, request.labels);
    const label = group === undefined ? 0 : spread(WEIGHT.spreadLabel, this.groupTallies.get(group)?.least(this.schedulable) ?? 0);
    let beyondUtilization = account + label;

    const image = this.imageNodes.get(request.imageId);
    if (image && image.size > this.smallSet) beyondUtilization += WEIGHT.imageLocality;
    else if (image) for (const entry of image) walk.look(entry);
    for (const expression of asked.soft) {
      const named = expression.negated ? undefined : expression.matching;
      if (named && named.size <= this.smallSet) for (const entry of named) walk.look(entry);
      else beyondUtilization += WEIGHT.soft;
    }

    const whole = this.known <= this.exhaustiveNodes;
    for (let level = LEVELS; level >= 0; level -= 1) {
      const nodes = this.levels[level]!;
      if (nodes.size === 0) continue;
      const bound = utilizationScore(level) + beyondUtilization;
      for (const entry of nodes) {
        if (!whole && walk.cannotImprove(bound)) return;
        walk.look(entry);
      }
    }
    if (whole) for (const kind of [this.unschedulable.liveness, this.unschedulable.cordon])
      for (const nodes of kind.values()) for (const entry of nodes) walk.look(entry);
    walk.sawAll = whole;
  }

  private score(entry: NodeEntry, asked: Asked): NodeScore {
    const {request} = asked;
    const view = entry.view!;
    const group = spreadGroup(request.account, request.labels);
    const parts: NodeScore['parts'] = {
      soft: WEIGHT.soft * asked.soft.filter((e) => holds(entry, view, e, request.account)).length,
      spreadLabel: group === undefined ? 0 : spread(WEIGHT.spreadLabel, entry.groups.get(group) ?? 0),
      utilization: utilizationScore(entry.level),
      spreadAccount: spread(WEIGHT.spreadAccount, entry.accounts.get(request.account) ?? 0),
      imageLocality: entry.images.has(request.imageId) ? WEIGHT.imageLocality : 0,
    };
    return {nodeId: view.id, node: view.name, total: totalOf(parts), parts};
  }
}

/** One placement's search: what was looked at, what rejected it, and the best so far, best first. */
class Walk {
  readonly best: NodeScore[] = [];
  readonly rejections = new Rejections();
  sawAll = false;
  private readonly seen = new Set<NodeEntry>();

  constructor(private readonly asked: Asked, private readonly score: (entry: NodeEntry) => NodeScore) {}

  get considered(): number {
    return this.seen.size;
  }

  look(entry: NodeEntry): void {
    if (!entry.view || this.seen.has(entry)) return;
    this.seen.add(entry);
    const rejection = rejects(entry, entry.view, this.asked);
    if (rejection) return this.rejections.add(rejection.filter, rejection.detail, entry.view.name);
    const score = this.score(entry);
    let at = this.best.length;
    while (at > 0 && this.best[at - 1]!.total < score.total) at -= 1;
    if (at >= KEPT) return;
    this.best.splice(at, 0, score);
    if (this.best.length > KEPT) this.best.pop();
  }

  /** Sums of the same numbers in another order differ in the last bits; a difference below this is none. */
  cannotImprove(bound: number): boolean {
    return this.best.length === KEPT && this.best[KEPT - 1]!.total >= bound - 1e-9;
  }
}

const labelKey = (key: string, value: string): string => JSON.stringify([key, value]);
const nameKey = (c: ContainerView): string => JSON.stringify([c.account, c.name]);

function addTo<K, V>(sets: Map<K, Set<V>>, key: K, value: V): void {
  const set = sets.get(key);
  if (set) set.add(value);
  else sets.set(key, new Set([value]));
}

function dropFrom<K, V>(sets: Map<K, Set<V>>, key: K, value: V): void {
  const set = sets.get(key);
  if (set?.delete(value) && set.size === 0) sets.delete(key);
}

function tally(tallies: Map<string, Tally>, key: string, before: number, after: number): void {
  let counts = tallies.get(key);
  if (!counts) tallies.set(key, (counts = new Tally()));
  counts.change(before, after);
  if (counts.empty) tallies.delete(key);
}

function setOf(...entries: (NodeEntry | undefined)[]): ReadonlySet<NodeEntry> {
  return new Set(entries.filter((e): e is NodeEntry => e !== undefined));
}

function* namesOf(nodes: Iterable<NodeEntry>): Iterable<string> {
  for (const entry of nodes) if (entry.view) yield entry.view.name;
}

export function createPlacementIndex(config: PlacementConfig = {}): ExplainingIndex {
  return new Index(config.exhaustiveNodes ?? 256, config.smallSet ?? 1024);
}
