/**
 * The durable `/events`: the past from the `events` bucket, then live, with no gap and no duplicate; and the way in for events that
 * change no state. Chains and reports write their own events in the batch of the change itself.
 */
import {CetusError} from '../base/errors';
import type {Clock} from '../base/clock';
import type {Ids} from '../base/ids';
import type {Log} from '../base/log';
import {and, eq, ge, le} from '../moray/filter';
import type {BatchOp, Moray, Stored} from '../moray/moray';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import type {DatacenterEvent} from '../schema/objects';
import {familiarName, parseImageName} from '../schema/reference';
import {acceptFilters, has, labelsMatch, valuesOf} from './filters';
import type {Caller, EventVerbs, Filters} from './verbs';

const BUCKET = BUCKETS.events.name;
const MAX_QUEUED = 10_000;
const MAX_BATCH = 200;
/** What comes so soon after another is one commit: an exec's creation and its start are. */
const GATHER_MS = 4;
const ACCEPTED = ['config', 'container', 'daemon', 'event', 'image', 'label', 'network', 'node', 'plugin', 'scope', 'secret', 'service', 'type', 'volume'];
/** The index holds times as doubles: near 2e18 they are 256 ns apart. Bounds are widened by this and checked exactly afterwards. */
const INDEX_SLACK_NS = 1024n;
/** How far before its arming the live feed may reach back: commits that were under way. */
const OVERLAP_NS = 120_000_000_000n;

/** The attributes that the Engine gives every event of a container. */
export function containerAttributes(container: Pick<Container, 'labels' | 'imageReference' | 'name'>, more: Record<string, string> = {}): Record<string, string> {
  return {...container.labels, image: container.imageReference, name: container.name, ...more};
}

export function eventWrite(clock: Clock, ids: Ids, event: Omit<DatacenterEvent, 'timeNs'>): BatchOp {
  const timeNs = clock.nowNs().toString();
  const value: DatacenterEvent = {...event, timeNs};
  return {op: 'put', bucket: BUCKET, key: `${timeNs.padStart(20, '0')}-${ids.uuid().slice(0, 8)}`, value};
}

/** What the Engine says once a prune is over, also where there was nothing. */
export function pruned(type: 'container' | 'image' | 'network' | 'volume' | 'builder', bytes: number): Omit<DatacenterEvent, 'account' | 'timeNs'> {
  return {type, action: 'prune', actorId: '', attributes: {reclaimed: String(bytes)}};
}

/** A pure test of one event against the Engine's filters; different names must all hold, values of one name may any. */
function eventMatcher(filters: Filters): (event: DatacenterEvent) => boolean {
  acceptFilters(filters, ACCEPTED);
  const any = (name: string, test: (value: string) => boolean): boolean => !has(filters, name) || valuesOf(filters, name).some(test);
  // What execs and health checks do has its command or its outcome behind it.
  const begins = valuesOf(filters, 'event').some((v) => v === 'exec_create' || v === 'exec_start' || v === 'health_status');
  return (event) => {
    const {actorId, attributes: {name = '', image = ''}} = event;
    const imageName = event.type === 'image' ? name : image;
    return any('type', (v) => v === event.type)
      && any('event', (v) => v === event.action || (begins && event.action.startsWith(v)))
      && any('scope', (v) => v === 'local')
      && (!has(filters, 'label') || labelsMatch(valuesOf(filters, 'label'), event.attributes))
      && NOUNS.every((noun) => any(noun, (v) => actorId.startsWith(v) || name.startsWith(v)))
      && any('image', (v) => [actorId, imageName, withoutTag(actorId), withoutTag(imageName)].includes(v));
  };
}

/** As the Engine does: by the beginning of an id or a name, whatever kind of thing it is that has it. */
const NOUNS = ['container', 'volume', 'network', 'daemon', 'node', 'config', 'plugin', 'secret', 'service'] as const;

function withoutTag(image: string): string {
  try {
    return familiarName(parseImageName(image));
  } catch {
    return image;
  }
}

export class EventLog {
  private queue: BatchOp[] = [];
  private writing: Promise<void> | undefined;

  constructor(private readonly moray: Moray, private readonly clock: Clock, private readonly ids: Ids, private readonly log: Log) {}

  emit(account: string, event: Omit<DatacenterEvent, 'account' | 'timeNs'>): void {
    if (this.queue.length >= MAX_QUEUED) {
      this.log.error({action: event.action, actorId: event.actorId}, 'the event is lost: the store takes events more slowly than they come');
      return;
    }
    this.queue.push(eventWrite(this.clock, this.ids, {...event, account}));
    this.writing ??= this.drain().finally(() => { this.writing = undefined; });
  }

  private async drain(): Promise<void> {
    await this.clock.sleep(GATHER_MS);
    for (let failures = 0; this.queue.length > 0;) {
      const part = this.queue.slice(0, MAX_BATCH);
      try {
        await this.moray.batch(part);
        this.queue = this.queue.slice(part.length);
        failures = 0;
      } catch (err) {
        failures += 1;
        if (failures >= 5) {
          this.log.error({err, events: this.queue.length}, 'writing events; they are lost');
          this.queue = [];
          return;
        }
        await this.clock.sleep(100 * 2 ** failures);
      }
    }
  }

  /** Resolves when what was emitted before is durable, or lost and logged. */
  async flush(): Promise<void> {
    await this.writing;
  }

  /** Forgets what is older than the retention. */
  async prune(retentionMs: number): Promise<void> {
    await this.moray.deleteMany(BUCKET, le('timeNs', (this.clock.now() - retentionMs) * 1_000_000));
  }

  async stream(caller: Caller, query: {sinceNs?: bigint; untilNs?: bigint; filters: Filters}): Promise<AsyncIterable<DatacenterEvent>> {
    const matches = eventMatcher(query.filters);
    const {sinceNs, untilNs} = query;
    const nowNs = this.clock.nowNs();
    const live = untilNs === undefined || untilNs > nowNs;
    const ended = new AbortController();
    const end = (): void => ended.abort();
    if (caller.signal?.aborted) end();
    caller.signal?.addEventListener('abort', end, {once: true});
    // The feed is armed before the past is read: what falls in between is seen by both, and told apart by its key.
    const feed = live ? await this.moray.watch<DatacenterEvent>(BUCKET, eq('account', caller.account), {signal: ended.signal}) : undefined;
    await this.flush();
    const {clock} = this;
    const past = sinceNs === undefined ? undefined : this.past(caller.account, sinceNs, untilNs);
    const inRange = (e: DatacenterEvent): boolean => (sinceNs === undefined || BigInt(e.timeNs) >= sinceNs) && (untilNs === undefined || BigInt(e.timeNs) <= untilNs);

    return (async function* () {
      const seen = new Set<string>();
      const timer = live && untilNs !== undefined ? clock.sleep(Number((untilNs - nowNs) / 1_000_000n) + 1, ended.signal).then(end, () => undefined) : undefined;
      try {
        if (past) for await (const stored of past) {
          if (ended.signal.aborted && caller.signal?.aborted) return;
          if (BigInt(stored.value.timeNs) > nowNs - OVERLAP_NS) seen.add(stored.key);
          if (matches(stored.value)) yield stored.value;
        }
        if (!feed) return;
        for await (const change of feed) {
          if (change.kind !== 'put' || seen.delete(change.key)) continue;
          if (inRange(change.value) && matches(change.value)) yield change.value;
        }
      } catch (err) {
        if (!ended.signal.aborted) throw err;
      } finally {
        end();
        caller.signal?.removeEventListener('abort', end);
        await timer;
      }
    })();
  }

  private async *past(account: string, sinceNs: bigint, untilNs: bigint | undefined): AsyncGenerator<Stored<DatacenterEvent>> {
    const bounds = [ge('timeNs', sinceNs - INDEX_SLACK_NS), ...(untilNs === undefined ? [] : [le('timeNs', untilNs + INDEX_SLACK_NS)])];
    // Keys are times of fixed width: their order is exact where the index's is not.
    for await (const stored of this.moray.find<DatacenterEvent>(BUCKET, and(eq('account', account), ...bounds), {sort: [{field: '_key', order: 'asc'}]})) {
      const timeNs = BigInt(stored.value.timeNs);
      if (timeNs >= sinceNs && (untilNs === undefined || timeNs <= untilNs)) yield stored;
    }
  }
}

export function eventVerbs(events: EventLog): EventVerbs {
  return {
    stream: (caller, query) => {
      if (query.sinceNs !== undefined && query.untilNs !== undefined && query.sinceNs > query.untilNs)
        return Promise.reject(new CetusError('invalid', `since time (${query.sinceNs}) cannot be after until time (${query.untilNs})`));
      return events.stream(caller, query);
    },
    emit: (caller, event) => events.emit(caller.account, event),
  };
}
