// What moray costs beside the same statements sent straight through pg, and by pgbench, on the three-peer cluster: a write is acknowledged by two disks.
//
//   moray    put, get, ... as everybody here calls them
//   pg       the same SQL, prepared, from a pool of as many connections; a batch is one statement over arrays, which is the quickest that pg can do
//   by hand  what one would write who needs no feed, no log and no etags from a sequence: INSERT ... ON CONFLICT on a table with the same columns and indexes
//   pgbench  the same SQL as pg, from a client in C that makes nothing of the answers: what the servers can do
import {execFile} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {promisify} from 'node:util';
import pg from 'pg';
import {BIN} from '../processes.mjs';

const DIST = path.resolve(import.meta.dirname, '../../../dist');
const CALLERS = [1, 8, 32];
const POOL = 32;
const OBJECTS = 2000;
const ACCOUNTS = 200;
const BATCH = 10;
const SLICE_MS = 250;
const SLICES = 9;
const PGBENCH_MS = 500;
const TARGET = 0.8;

const BUCKET = {
  name: 'bench', version: 1,
  fields: {account: {type: 'string'}, name: {type: 'string'}, nodeId: {type: 'string'}, status: {type: 'string'}, imageId: {type: 'string'}, createdAtNs: {type: 'number'}},
};
const COLUMNS = Object.keys(BUCKET.fields);

/** The size and shape of a stored container: 3 kB. */
const object = (n) => ({
  account: `account-${n % ACCOUNTS}`, name: `name-${n}`, nodeId: `node-${n % 50}`, status: 'running', imageId: `sha256:${String(n % 20).padStart(64, '0')}`, createdAtNs: 1_700_000_000_000 + n,
  config: {Env: Array.from({length: 30}, (_, i) => `VARIABLE_${i}=a value of usual length ${i}`), Labels: Object.fromEntries(Array.from({length: 15}, (_, i) => [`com.example.label-${i}`, `text ${i}`])), Cmd: ['sh', '-c', 'sleep 1000']},
  hostConfig: {Binds: [], RestartPolicy: {Name: 'no'}, Memory: 1 << 28, Ulimits: Array.from({length: 10}, (_, i) => ({Name: `limit-${i}`, Soft: 1024, Hard: 4096}))},
});
const key = (n) => `key-${n}`;
const any = () => Math.floor(Math.random() * OBJECTS);

export default async function moray({cluster, dir, line, note, result, isWanted}) {
  if (!isWanted('moray')) return;
  const system = await cluster();
  const [url] = await system.discover();
  const {createMoray} = await import(path.join(DIST, 'moray/postgres.js'));
  const store = createMoray({url, poolSize: POOL});
  const pool = new pg.Pool({connectionString: url, max: POOL, idleTimeoutMillis: 0});
  pool.on('error', () => undefined);
  try {
    await store.open(BUCKET);
    await pool.query(byHandTable());
    for (let from = 0; from < OBJECTS; from += 200)
      await store.batch(Array.from({length: 200}, (_, i) => ({op: 'put', bucket: 'bench', key: key(from + i), value: object(from + i)})));
    await pool.query(`INSERT INTO byhand SELECT _key, _value, 1, ${COLUMNS.map((name) => `"${name}"`).join(', ')} FROM moray.bench`);
    await pool.query('ANALYZE');
    const sides = {moray: viaMoray(store), pg: viaPool(pool), 'by hand': byHand(pool)};
    const scripts = pgbenchScripts(dir);
    line(['', 'callers', 'moray/s', 'pg/s', 'by hand/s', 'pgbench/s', '/pg', '/by hand', '/pgbench']);
    for (const op of ['put', 'get', 'conditional put', 'find by index', 'batch of 10'])
      for (const callers of CALLERS) {
        const {rates, ratio} = await compare(sides, op, callers, (rate) => pgbench(url, scripts[op], callers, rate));
        result(`moray: ${op}, ${callers} callers, of pg`, ratio('pg'), TARGET, [op, callers, ...['moray', 'pg', 'by hand', 'pgbench'].map((side) => rates[side].toFixed(0)), ...['pg', 'by hand', 'pgbench'].map((side) => ratio(side).toFixed(2))]);
      }
    note(`moray: ${SLICES} slices of ${SLICE_MS} ms each, in turn, medians of operations per second, and of the ratios of neighbours; ${POOL} connections, objects of ${JSON.stringify(object(1)).length} bytes`);
  } finally {
    await store.close();
    await pool.end();
  }
}

const median = (xs) => [...xs].sort((a, b) => a - b)[Math.floor(xs.length / 2)];

/**
 * Operations per second of each, slice by slice in turn, so that a machine that gets slower does so for all. A ratio is the median of those of the slices that
 * stood beside each other: of two medians one may be from a good moment and the other from a bad one, which moved a ratio of four slices between 0.6 and 1.5.
 */
async function compare(sides, op, callers, runPgbench) {
  const rates = {pgbench: []};
  for (const side of Object.keys(sides)) rates[side] = [];
  for (let n = -1; n < SLICES; n += 1) {
    const order = n % 2 ? Object.keys(sides) : Object.keys(sides).reverse();
    for (const side of order) {
      const rate = await slice((caller) => sides[side][op](caller), callers, n < 0 ? SLICE_MS / 2 : SLICE_MS);
      if (n >= 0) rates[side].push(rate);
    }
    // Each run of it connects anew, so it has fewer and longer ones.
    if (n === 0 || n === SLICES - 1) rates.pgbench.push(await runPgbench(rates.pg.at(-1)));
  }
  const medians = Object.fromEntries(Object.entries(rates).map(([side, of]) => [side, side === 'pgbench' ? (of[0] + of[1]) / 2 : median(of)]));
  return {rates: medians, ratio: (to) => (to === 'pgbench' ? medians.moray / medians.pgbench : median(rates.moray.map((rate, n) => rate / rates[to][n])))};
}

async function slice(work, callers, ms) {
  const from = performance.now();
  const until = from + ms;
  let done = 0;
  await Promise.all(Array.from({length: callers}, async (_, caller) => {
    while (performance.now() < until) {
      await work(caller);
      done += 1;
    }
  }));
  return done / (performance.now() - from) * 1000;
}

function viaMoray(store) {
  const etags = new Map();
  return {
    put: () => { const n = any(); return store.put('bench', key(n), object(n)); },
    get: () => store.get('bench', key(any())),
    async 'conditional put'(caller) {
      const {etag} = await store.put('bench', `moray-${caller}`, object(caller), etags.has(caller) ? {etag: etags.get(caller)} : {});
      etags.set(caller, etag);
    },
    'find by index': () => store.list('bench', `(account=account-${any() % ACCOUNTS})`, {limit: 10}),
    'batch of 10': () => store.batch(distinct().map((n) => ({op: 'put', bucket: 'bench', key: key(n), value: object(n)}))),
  };
}

/** In the order of keys: two batches that meet do not wait for each other in a circle. */
function distinct() {
  const found = new Set();
  while (found.size < BATCH) found.add(any());
  return [...found].sort((a, b) => a - b);
}

const PUT = 'SELECT moray.bench__put($1, $2, $3, $4)';
const FIND = 'SELECT _key, _value, _etag, _mtime FROM moray.bench WHERE account = $1 ORDER BY _key LIMIT 10';

function viaPool(pool) {
  const etags = new Map();
  const put = async (k, value, mode, etag) => {
    const {rows: [row]} = await pool.query({name: 'put', text: PUT, values: [k, JSON.stringify(value), mode, etag], rowMode: 'array'});
    const [fresh, mtime] = row[0].split(' ');
    return {etag: fresh, mtime: Number(mtime)};
  };
  return {
    put: () => { const n = any(); return put(key(n), object(n), 0, null); },
    get: async () => (await pool.query({name: 'get', text: 'SELECT _key, _value, _etag, _mtime FROM moray.bench WHERE _key = $1', values: [key(any())]})).rows[0],
    async 'conditional put'(caller) {
      const known = etags.get(caller);
      etags.set(caller, (await put(`pg-${caller}`, object(caller), known ? 2 : 0, known ?? null)).etag);
    },
    'find by index': async () => (await pool.query({name: 'find', text: FIND, values: [`account-${any() % ACCOUNTS}`]})).rows,
    async 'batch of 10'() {
      const ns = distinct();
      return (await pool.query({name: 'batch', text: 'SELECT moray.bench__put(k, v, 0, NULL) FROM unnest($1::text[], $2::jsonb[]) AS t (k, v)', values: [ns.map(key), ns.map((n) => JSON.stringify(object(n)))], rowMode: 'array'})).rows;
    },
  };
}

const quoted = (name) => `"${name}"`;
const byHandTable = () => `CREATE TABLE byhand (_key text COLLATE "C" PRIMARY KEY, _value jsonb NOT NULL, _version bigint NOT NULL, ${COLUMNS.map((name) => `${quoted(name)} ${BUCKET.fields[name].type === 'number' ? 'numeric' : 'text COLLATE "C"'}`).join(', ')}) WITH (toast_tuple_target = 8160);
${COLUMNS.map((name) => `CREATE INDEX ON byhand (${quoted(name)});`).join('\n')}`;

function byHand(pool) {
  const columns = `_key, _value, _version, ${COLUMNS.map(quoted).join(', ')}`;
  const replace = `ON CONFLICT (_key) DO UPDATE SET _value = excluded._value, _version = byhand._version + 1, ${COLUMNS.map((name) => `${quoted(name)} = excluded.${quoted(name)}`).join(', ')} RETURNING _version`;
  const one = `INSERT INTO byhand (${columns}) VALUES ($1, $2, 1, ${COLUMNS.map((_, i) => `$${i + 3}`).join(', ')}) ${replace}`;
  const many = `INSERT INTO byhand (${columns}) SELECT k, v, 1, ${COLUMNS.map((name) => (BUCKET.fields[name].type === 'number' ? `(v ->> '${name}')::numeric` : `v ->> '${name}'`)).join(', ')} FROM unnest($1::text[], $2::jsonb[]) AS t (k, v) ${replace}`;
  const conditional = `UPDATE byhand SET _value = $2, _version = _version + 1, ${COLUMNS.map((name, i) => `${quoted(name)} = $${i + 4}`).join(', ')} WHERE _key = $1 AND _version = $3 RETURNING _version`;
  const fields = (value) => COLUMNS.map((name) => value[name]);
  const put = async (k, value) => (await pool.query({name: 'hand_put', text: one, values: [k, JSON.stringify(value), ...fields(value)]})).rows[0]._version;
  const versions = new Map();
  return {
    put: () => { const n = any(); return put(key(n), object(n)); },
    get: async () => (await pool.query({name: 'hand_get', text: 'SELECT _key, _value, _version FROM byhand WHERE _key = $1', values: [key(any())]})).rows[0],
    async 'conditional put'(caller) {
      const value = object(caller);
      const known = versions.get(caller);
      if (known === undefined) return void versions.set(caller, await put(`hand-${caller}`, value));
      const {rows: [row]} = await pool.query({name: 'hand_conditional', text: conditional, values: [`hand-${caller}`, JSON.stringify(value), known, ...fields(value)]});
      if (!row) throw new Error('somebody else wrote');
      versions.set(caller, row._version);
      return undefined;
    },
    'find by index': async () => (await pool.query({name: 'hand_find', text: 'SELECT _key, _value, _version FROM byhand WHERE account = $1 ORDER BY _key LIMIT 10', values: [`account-${any() % ACCOUNTS}`]})).rows,
    async 'batch of 10'() {
      const ns = distinct();
      return (await pool.query({name: 'hand_batch', text: many, values: [ns.map(key), ns.map((n) => JSON.stringify(object(n)))]})).rows;
    },
  };
}

/** A script per operation. Its objects are all of the same value, which is a variable of its own, so that it is sent as a parameter. */
function pgbenchScripts(dir) {
  const random = `\\set k random(0, ${OBJECTS - 1})\n`;
  const put = `SELECT moray.bench__put('key-' || :k, :value, 0, NULL);\n`;
  const scripts = {
    put: random + put,
    get: `${random}SELECT _key, _value, _etag, _mtime FROM moray.bench WHERE _key = 'key-' || :k;\n`,
    'conditional put': `SELECT split_part(moray.bench__put('pgbench-' || :client_id, :value, :mode, :etag), ' ', 1) AS etag \\gset\n\\set mode 2\n`,
    'find by index': `\\set a random(0, ${ACCOUNTS - 1})\n${FIND.replace('$1', `'account-' || :a`)};\n`,
    // Neighbours, in the order of keys, for the same reason as above.
    'batch of 10': `\\set k random(0, ${OBJECTS - BATCH - 1})\n\\startpipeline\n${Array.from({length: BATCH}, (_, i) => `SELECT moray.bench__put('key-' || (:k::int + ${i}), :value, 0, NULL);`).join('\n')}\n\\endpipeline\n`,
  };
  return Object.fromEntries(Object.entries(scripts).map(([op, text], n) => {
    const file = path.join(dir, `pgbench-${n}.sql`);
    fs.writeFileSync(file, text);
    return [op, file];
  }));
}

/** Transactions per second; as many as last about `PGBENCH_MS` at the rate that the others have. */
async function pgbench(url, file, callers, rate) {
  const each = Math.max(5, Math.round(rate * PGBENCH_MS / 1000 / callers));
  const {stdout} = await promisify(execFile)(`${BIN}/pgbench`, ['-n', '-M', 'prepared', '-c', String(callers), '-t', String(each), '-D', `value=${JSON.stringify(object(1))}`, '-D', 'etag=0', '-D', 'mode=0', '-f', file, url], {env: {PATH: process.env.PATH}});
  const found = /^tps = ([\d.]+)/m.exec(stdout)?.[1];
  if (!found) throw new Error(`pgbench says nothing of its rate: ${stdout}`);
  return Number(found);
}
