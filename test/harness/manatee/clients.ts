/**
 * Clients that never stop: writers over plain connections and over moray, both through discovery, and readers that must see all that was acknowledged
 * before they asked. Each is told where the primary is by ZooKeeper alone and writes to nothing that is in recovery or of an older generation.
 */
import pg from 'pg';
import {isCetusError} from '../../../lib/base/errors';
import {silentLog} from '../../../lib/base/log';
import {createDiscovery, type Discovery as Whereabouts} from '../../../lib/manatee/discover';
import type {Moray} from '../../../lib/moray/moray';
import {createMoray} from '../../../lib/moray/postgres';
import type {Discovery, Primary} from '../../../lib/moray/primary';
import type {BucketDefinition} from '../../../lib/schema/bucket';
import {CLIENT_PASSWORD, drop, PATH, type Cluster} from './cluster';
import type {Ledger} from './ledger';

/** Between two writes of a writer: enough of them to hit every moment, few enough to leave the machine to the cluster. */
const PAUSE_MS = 25;
const PATIENCE_MS = 2000;
const NOTES: BucketDefinition = {name: 'notes', version: 1, fields: {writer: {type: 'string'}, n: {type: 'number'}}};
const COUNTER = 'counter';

const pause = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

/** What is told of the primary, as a URL. */
class AsUrl implements Discovery {
  constructor(private readonly whereabouts: Whereabouts) {}

  async primary(): Promise<Primary> {
    const {host, port, generation} = await this.whereabouts.primary();
    return {url: `postgres://cetus:${encodeURIComponent(CLIENT_PASSWORD)}@${host}:${port}/cetus`, generation};
  }

  onChange(listener: () => void): () => void { return this.whereabouts.onChange(listener); }
}

export class Clients {
  private readonly ending = new AbortController();
  private readonly running: Promise<unknown>[] = [];
  private readonly whereabouts: Whereabouts;
  private readonly discovery: Discovery;
  private moray: Moray | undefined;
  reads = 0;

  constructor(private readonly cluster: Cluster, readonly ledger: Ledger) {
    this.whereabouts = createDiscovery({servers: cluster.zookeeper.address, path: PATH, sessionTimeoutMs: cluster.sessionTimeoutMs, log: silentLog()});
    this.discovery = new AsUrl(this.whereabouts);
  }

  async start({plain = 3, moray = 2, readers = 1} = {}): Promise<void> {
    await this.withPrimary((client) => client.query('CREATE TABLE IF NOT EXISTS writes (writer text NOT NULL, n int NOT NULL); CREATE INDEX IF NOT EXISTS writes_of ON writes (writer, n)'));
    // No unique index: two of the same must be able to stand there, or a test would never see them.
    this.moray = createMoray({url: this.discovery, poolSize: 4});
    await this.moray.open(NOTES);
    await this.moray.put('notes', COUNTER, {writer: COUNTER, n: 0});
    for (let i = 0; i < plain; i += 1) this.running.push(this.writePlain(`plain-${i}`));
    for (let i = 0; i < moray; i += 1) this.running.push(this.writeMoray(`moray-${i}`));
    this.running.push(this.count());
    for (let i = 0; i < readers; i += 1) this.running.push(this.read());
  }

  async stop(): Promise<void> {
    this.ending.abort();
    await Promise.all(this.running);
    await this.moray?.close();
    await this.whereabouts.close();
  }

  private get ended(): boolean { return this.ending.signal.aborted; }

  /** One connection after the other for as long as we run; `use` until it throws. */
  private async connections(use: (client: pg.Client, primary: Primary) => Promise<void>): Promise<void> {
    while (!this.ended) {
      let client: pg.Client | undefined;
      try {
        const primary = await this.discovery.primary();
        client = new pg.Client({connectionString: primary.url, connectionTimeoutMillis: PATIENCE_MS, application_name: 'chaos'});
        client.on('error', () => undefined);
        await client.connect();
        await within(isPrimary(client, primary));
        await use(client, primary);
      } catch {
        await pause(PAUSE_MS);
      } finally {
        if (client) drop(client);
      }
    }
  }

  private async writePlain(name: string): Promise<void> {
    let n = 0;
    await this.connections(async (client, primary) => {
      while (!this.ended && (await this.discovery.primary()).url === primary.url) {
        n += 1;
        const sentMs = performance.now();
        let cancelled = false;
        const notice = (): void => { cancelled = true; };
        client.on('notice', notice);
        try {
          await within(client.query('INSERT INTO writes VALUES ($1, $2)', [name, n]));
          // A wait for the sync that somebody cancelled is no acknowledgement (lib/moray/README.md).
          if (cancelled) this.ledger.writer(name).unknown.add(n);
          else this.ledger.acked(name, n, sentMs);
        } catch (err) {
          // Whoever ends our connection may have done so during the commit; any other refusal comes before it.
          const refused = err instanceof pg.DatabaseError && err.code !== undefined && !/^(57|08|XX|58|53)/.test(err.code);
          this.ledger.writer(name)[refused ? 'refused' : 'unknown'].add(n);
          throw err;
        } finally {
          client.off('notice', notice);
        }
        await pause(PAUSE_MS);
      }
    });
  }

  private async writeMoray(name: string): Promise<void> {
    for (let n = 1; !this.ended; n += 1) {
      const sentMs = performance.now();
      await this.moray!.put('notes', `${name}/${n}`, {writer: name, n}, {etag: null, deadlineMs: PATIENCE_MS})
        .then(() => this.ledger.acked(name, n, sentMs), (err: unknown) => this.failed(name, n, err));
      await pause(PAUSE_MS);
    }
  }

  private failed(name: string, n: number, err: unknown): void {
    const unknown = !isCetusError(err, 'unavailable') && !isCetusError(err, 'timeout') && !isCetusError(err, 'etagConflict') || (err as {info?: {outcome?: string}}).info?.outcome === 'unknown';
    this.ledger.writer(name)[unknown ? 'unknown' : 'refused'].add(n);
  }

  /** Counts up by conditional puts: an update that got lost, or that was made twice, is an etag that is not what it must be, or a number too small. */
  private async count(): Promise<void> {
    let least = 0;
    while (!this.ended) {
      try {
        const {value, etag} = await this.moray!.get<{n: number}>('notes', COUNTER, {deadlineMs: PATIENCE_MS});
        if (value.n < least && !this.someoneSlept()) this.ledger.violations.push(`the counter stood at ${least} and was read as ${value.n}`);
        const sentMs = performance.now();
        await this.moray!.put('notes', COUNTER, {writer: COUNTER, n: value.n + 1}, {etag, deadlineMs: PATIENCE_MS});
        least = value.n + 1;
        this.ledger.acked(COUNTER, least, sentMs);
      } catch {
        // The next look shows what has become of it.
      }
      await pause(PAUSE_MS);
    }
  }

  private async read(): Promise<void> {
    await this.connections(async (client, primary) => {
      while (!this.ended && (await this.discovery.primary()).url === primary.url) {
        const promised = this.ledger.promised();
        const sentMs = performance.now();
        const {rows} = await within(client.query<{writer: string; n: number}>(`SELECT writer, max(n) AS n FROM writes GROUP BY writer`));
        this.reads += 1;
        for (const {writer, n} of rows) {
          if (n < (promised.get(writer) ?? 0) && !this.someoneSlept(sentMs))
            this.ledger.violations.push(`${primary.url.replace(/.*@/, '')} (generation ${primary.generation}) read ${writer} up to ${n}, and ${promised.get(writer)} had been acknowledged`);
        }
        await pause(PAUSE_MS * 2);
      }
    });
  }

  /** A machine that sleeps as a whole can answer a read from its former life when it wakes: it is not promised that it does not. */
  private someoneSlept(sinceMs = performance.now()): boolean {
    return this.cluster.machines.some((machine) => machine.sleptUntilMs > sinceMs - PATIENCE_MS);
  }

  async withPrimary<T>(use: (client: pg.Client) => Promise<T>): Promise<T> {
    const primary = await this.discovery.primary();
    const client = new pg.Client({connectionString: primary.url, connectionTimeoutMillis: 10_000, query_timeout: 20_000});
    client.on('error', () => undefined);
    try {
      await client.connect();
      await isPrimary(client, primary);
      return await use(client);
    } finally {
      drop(client);
    }
  }
}

async function isPrimary(client: pg.Client, {generation}: Primary): Promise<void> {
  const {rows: [row]} = await client.query<{recovery: boolean; generation: string}>(`SELECT pg_is_in_recovery() AS recovery, current_setting('cetus.generation') AS generation`);
  if (row!.recovery || Number(row!.generation) < generation) throw new Error('it is not the primary that was meant');
}

async function within<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([promise, new Promise<never>((_, reject) => { timer = setTimeout(() => reject(new Error(`no answer within ${PATIENCE_MS} ms`)), PATIENCE_MS); })]);
  } finally {
    clearTimeout(timer);
  }
}

/** All that stands in one database, by writer. */
export async function written(client: pg.Client): Promise<Map<string, number[]>> {
  const {rows} = await client.query<{writer: string; all: number[]}>(`
    SELECT writer, array_agg(n) AS all FROM (
      SELECT writer, n FROM writes UNION ALL
      SELECT substr(_key, 1, strpos(_key, '/') - 1), substr(_key, strpos(_key, '/') + 1)::int FROM moray.notes WHERE strpos(_key, '/') > 0
    ) AS every GROUP BY writer`);
  const {rows: [counter]} = await client.query<{n: number}>(`SELECT (_value->>'n')::int AS n FROM moray.notes WHERE _key = '${COUNTER}'`);
  // It has been every number up to the one that it is.
  return new Map([...rows.map(({writer, all}): [string, number[]] => [writer, all]), [COUNTER, Array.from({length: counter!.n}, (_, i) => i + 1)]]);
}
