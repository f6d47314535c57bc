/**
 * The Coordination over real ZooKeeper servers. A view is read behind a write that a quorum agreed to, on the same connection, so it is no older than the
 * call (session.ts); a write of the state is one transaction. Parents are made by the first write that misses them, never by a look.
 */
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Announcement, ClusterView, Coordination, Declaration, LivePeer, Monotonic} from '../coordination';
import type {HistoryEntry} from '../state';
import {Contact} from './contact';
import type {Node, Op, Outcome, Session} from './session';
import {decodeEntry, decodePeer, decodeState, encode, illegible} from './stored';

export interface CoordinationOptions {
  /** host:port,host:port */
  servers: string;
  /** The cluster's node, '/cetus/db'. */
  path: string;
  /** This peer's id; an operator's command, which announces nothing, has none. */
  id?: string;
  /** Asked for; the servers may grant another. Three of their ticks or more (lease.ts). */
  sessionTimeoutMs: number;
  /** Entries of the history; at times a hundredth more. Default: 10,000. */
  historyKept?: number;
  clock: Monotonic;
  log: Log;
}

export interface ZooKeeperCoordination extends Coordination {
  /** Waits for a connection, and throws `unavailable` where none comes. For commands; a sitter goes by onChange. */
  ready(timeoutMs: number): Promise<void>;
}

const NAME = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,200}$/;
const ANY_VERSION = -1;
const HISTORY_READS = 64;
/** A peer that comes and goes writes twice a second; from some 50,000 on their list is longer than ZooKeeper lets an answer be. */
const HISTORY_KEPT = 10_000;
/** Somebody else may make or remove what we looked at: look again. More than once or twice is somebody who does nothing else. */
const TRIES = 5;

export function createCoordination(options: CoordinationOptions): ZooKeeperCoordination {
  return new OverZooKeeper(options);
}

/** Throws `invalid`. */
export function nodesUnder(path: string): {state: string; history: string; peers: string; rebuild: string; parents: string[]} {
  const names = path.split('/').slice(1);
  if (!path.startsWith('/') || !names.every((name) => NAME.test(name))) throw new CetusError('invalid', `${JSON.stringify(path)} is no path in ZooKeeper`);
  const [history, peers, rebuild] = [`${path}/history`, `${path}/peers`, `${path}/rebuild`];
  return {state: `${path}/state`, history, peers, rebuild, parents: [...names.map((_, i) => `/${names.slice(0, i + 1).join('/')}`), history, peers, rebuild]};
}

class OverZooKeeper implements ZooKeeperCoordination {
  private readonly contact: Contact;
  private readonly nodes: ReturnType<typeof nodesUnder>;
  /** This process has had the name: whoever has it now, and is none of our sessions, came after us. */
  private announced = false;
  private toldIllegible = '';
  private writes = 0;

  constructor(private readonly options: CoordinationOptions) {
    this.nodes = nodesUnder(options.path);
    if (options.id !== undefined) named(options.id);
    this.contact = new Contact({...options, beat: (session) => session.throughLeader()});
  }

  async view(): Promise<ClusterView> {
    const session = this.contact.session();
    const {state, peers, rebuild} = this.nodes;
    // Sent together: a server answers a session in the order of its questions, reads behind a write once it has that write.
    const [, stored, ids, ordered] = await Promise.all([session.throughLeader(), session.read(state, true), session.children(peers, true), session.children(rebuild, true)]);
    const live = await Promise.all((ids ?? []).map(async (id): Promise<LivePeer | undefined> => {
      const node = await session.read(`${peers}/${id}`, true);
      return node && {...this.announcedBy(id, node), order: node.created, mine: node.owner === session.id()};
    }));
    return {
      state: stored ? decodeState(state, stored.data) : null, version: stored ? stored.version : -1,
      peers: live.filter((peer) => peer !== undefined).sort((a, b) => a.order - b.order), rebuild: (ordered ?? []).sort(),
    };
  }

  async declare({next, entry, version, absent}: Declaration): Promise<void> {
    const {state, history, peers} = this.nodes;
    const data = encode(next);
    const gone = absent.map((id) => `${peers}/${named(id)}`);
    const outcome = await this.write([
      version < 0 ? {op: 'create', path: state, data, kind: 'persistent'} : {op: 'set', path: state, data, version},
      {op: 'create', path: `${history}/n-`, data: encode({...entry, state: next}), kind: 'sequential'},
      ...gone.flatMap((path): Op[] => [{op: 'create', path, data: Buffer.alloc(0), kind: 'persistent'}, {op: 'remove', path, version: ANY_VERSION}]),
    ]);
    if (outcome.done) return this.written();
    if (outcome.at === 0) throw new CetusError('etagConflict', `somebody else wrote the cluster's state, which was at version ${version}`, {info: {version}});
    const alive = absent[Math.floor((outcome.at - 2) / 2)];
    if (outcome.because === 'nodeExists' && alive !== undefined) throw new CetusError('etagConflict', `${alive} is alive after all`, {info: {alive}});
    throw new CetusError('internal', `ZooKeeper refuses step ${outcome.at} of a declaration: ${outcome.because}`);
  }

  async announce(announcement: Announcement): Promise<void> {
    const id = this.ownId();
    if (announcement.id !== id) throw new CetusError('internal', `${id} announces ${announcement.id}`);
    const path = `${this.nodes.peers}/${id}`;
    const data = encode(announcement);
    const create: Op = {op: 'create', path, data, kind: 'ephemeral'};
    await this.again(async (session) => {
      const [, node] = await Promise.all([session.throughLeader(), session.read(path, false)]);
      if (node && !this.mayTake(node.owner)) throw new CetusError('conflict', `another process has taken the place of peer ${id}`, {info: {session: node.owner}});
      const outcome = await this.write(node?.owner === session.id() ? [{op: 'set', path, data, version: node.version}] : node ? [{op: 'remove', path, version: node.version}, create] : [create]);
      this.announced ||= outcome.done;
      return outcome.done;
    });
  }

  async withdraw(): Promise<void> {
    const path = `${this.nodes.peers}/${this.ownId()}`;
    await this.again(async (session) => {
      const [, node] = await Promise.all([session.throughLeader(), session.read(path, false)]);
      return !node || !this.mayTake(node.owner) || (await session.transact([{op: 'remove', path, version: node.version}])).done;
    });
  }

  async orderRebuild(id: string, wanted: boolean): Promise<void> {
    const path = `${this.nodes.rebuild}/${named(id)}`;
    // What is so already is refused, and well.
    await this.write([wanted ? {op: 'create', path, data: Buffer.alloc(0), kind: 'persistent'} : {op: 'remove', path, version: ANY_VERSION}]);
  }

  async history(limit: number): Promise<HistoryEntry[]> {
    if (!Number.isInteger(limit) || limit < 1) throw new CetusError('invalid', `history: ${limit} is no number of entries`);
    const session = this.contact.session();
    const [, names] = await Promise.all([session.throughLeader(), session.children(this.nodes.history, false)]);
    const wanted = inOrder(names).slice(-limit);
    const entries: HistoryEntry[] = [];
    for (let from = 0; from < wanted.length; from += HISTORY_READS) {
      entries.push(...(await Promise.all(wanted.slice(from, from + HISTORY_READS).map(async (name) => {
        const path = `${this.nodes.history}/${name}`;
        const node = await session.read(path, false);
        return node && decodeEntry(path, node.data);
      }))).filter((entry) => entry !== undefined));
    }
    return entries;
  }

  leaseUntilMs(): number { return this.contact.leaseUntilMs(); }
  onChange(listener: () => void): () => void { return this.contact.onChange(listener); }
  ready(timeoutMs: number): Promise<void> { return this.contact.ready(timeoutMs); }
  close(): Promise<void> { return this.contact.close(); }

  /** Nobody waits for it: what is left over goes with a later write, of whomever. */
  private written(): void {
    const {historyKept = HISTORY_KEPT, log} = this.options;
    if (this.writes++ % Math.ceil(historyKept / 100) === 0) void this.prune(historyKept).catch((err: unknown) => log.debug({err}, 'the oldest of the history stay for now'));
  }

  private async prune(kept: number): Promise<void> {
    const {history} = this.nodes;
    const old = inOrder(await this.contact.session().children(history, false)).slice(0, -kept);
    for (let from = 0; from < old.length; from += HISTORY_READS) {
      // One that is missing was somebody else's to remove, who goes on.
      const outcome = await this.contact.session().transact(old.slice(from, from + HISTORY_READS).map((name) => ({op: 'remove', path: `${history}/${name}`, version: ANY_VERSION})));
      if (!outcome.done) return;
    }
  }

  /** The node of an earlier session of ours, or of the process before us; not of one that came after us. */
  private mayTake(owner: string): boolean {
    return !this.announced || this.contact.isOwn(owner);
  }

  private announcedBy(id: string, node: Node): Announcement {
    const path = `${this.nodes.peers}/${id}`;
    try {
      return decodePeer(path, node.data);
    } catch (err) {
      // Once for each that is found so: a sitter looks several times a second.
      const found = `${id} ${node.created} ${node.version}`;
      if (this.toldIllegible !== found) this.options.log.error({err, peer: id}, 'what a peer says of itself cannot be read; it gets no place');
      this.toldIllegible = found;
      return illegible(id);
    }
  }

  private ownId(): string {
    if (this.options.id === undefined) throw new CetusError('internal', 'a command has no place among the peers');
    return this.options.id;
  }

  private async again(attempt: (session: Session) => Promise<boolean>): Promise<void> {
    for (let left = TRIES; left > 0; left -= 1) if (await attempt(this.contact.session())) return;
    throw new CetusError('unavailable', `the node of peer ${this.options.id} changes hands all the time`);
  }

  /** A transaction; where it misses a parent, once more with all parents made. */
  private async write(ops: Op[]): Promise<Outcome> {
    const outcome = await this.contact.session().transact(ops);
    // What a write changes or removes is missing without its parents' fault.
    if (outcome.done || outcome.because !== 'noNode' || ops[outcome.at]!.op !== 'create') return outcome;
    for (const path of this.nodes.parents) await this.contact.session().transact([{op: 'create', path, data: Buffer.alloc(0), kind: 'persistent'}]);
    return this.contact.session().transact(ops);
  }
}

/** ZooKeeper pads to ten digits and counts on beyond them. */
const inOrder = (names: string[] | undefined): string[] => (names ?? []).sort((a, b) => Number(a.slice(2)) - Number(b.slice(2)));

function named(id: string): string {
  if (!NAME.test(id)) throw new CetusError('invalid', `${JSON.stringify(id)} is no name of a peer: letters, digits, '.', '_' and '-'`);
  return id;
}
