// The replicated store in figures: failover beside Patroni, moray beside plain pg and pgbench, `docker run` on a cluster beside one Postgres.
//   make bench-db                              all of it, about ten minutes on a quiet machine
//   BENCH_ROWS=failover,moray,run make bench-db  some of it
//   BENCH_ROUNDS=5 make bench-db               fewer deaths of each kind and system than 20
//   BENCH_SESSION_MS=5000 make bench-db        the sessions with ZooKeeper, of both systems
// Systems that are compared take turns in one run; the machine's own speed drifts, so only what one run prints beside each other is to be quoted.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {startManatee} from './manatee.mjs';
import {startPatroni} from './patroni.mjs';
import {waitFor} from './processes.mjs';
import failover from './rows/failover.mjs';
import moray from './rows/moray.mjs';
import run from './rows/run.mjs';
import {startZooKeeper} from './zookeeper.mjs';

const ROWS = {failover, moray, run};
const HEALTHY_MS = 120_000;

const wanted = process.env.BENCH_ROWS?.split(',') ?? Object.keys(ROWS);
const unknown = wanted.find((name) => !(name in ROWS));
if (unknown !== undefined) throw new Error(`BENCH_ROWS: there is no ${unknown}, only ${Object.keys(ROWS).join(', ')}`);
const rounds = Number(process.env.BENCH_ROUNDS ?? 20);
const sessionMs = Number(process.env.BENCH_SESSION_MS ?? 5000);
if (!(rounds >= 1) || !(sessionMs >= 4000)) throw new Error('BENCH_ROUNDS is 1 or more, BENCH_SESSION_MS 4000 or more');

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-bench-db-'));
// Postgres runs as a user of its own and must get through.
fs.chmodSync(dir, 0o711);
const results = [];
const line = (cells) => console.log(cells.map((cell, n) => (n === 0 ? String(cell).padEnd(30) : String(cell).padStart(11))).join(' '));
/** `least`: the value must reach the target; `most`: it may not pass it. */
const result = (title, value, target, cells, kind = 'least') => {
  const ok = kind === 'least' ? value >= target : value <= target;
  results.push({title, value, ok});
  line([...cells, `${ok ? 'ok' : 'MISSED'} (${kind === 'least' ? '>=' : '<='} ${target})`]);
};

// Undone in reverse, whatever happens, also on Ctrl-C.
const undo = [() => fs.rmSync(dir, {recursive: true, force: true})];
let failed;
let undoing;
const undoAll = () => (undoing ??= (async () => {
  while (undo.length) await Promise.resolve().then(undo.pop()).catch((err) => { failed ??= err; });
})());
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => void undoAll().then(() => process.exit(1)));

/** Each is started when the first row wants it. */
const lazily = (start) => {
  let started;
  return () => (started ??= start());
};
const zookeeper = lazily(async () => {
  const started = await startZooKeeper(dir);
  undo.push(() => started.stop());
  return started;
});
const start = (make) => lazily(async () => {
  const system = await make({dir, zookeeper: await zookeeper(), sessionMs});
  undo.push(() => system.stop());
  await waitFor(`${system.name} to be healthy`, () => system.healthy(), HEALTHY_MS);
  return system;
});
const cluster = start(startManatee);
const patroni = start(startPatroni);

try {
  console.log(`starting what is wanted in ${dir} ...`);
  const common = {dir, undo, line, result, note: (text) => console.log(`  ${text}`), isWanted: (name) => wanted.includes(name), cluster, patroni, rounds, sessionMs};
  // The one that wants the machine for itself first; Patroni's servers come last, and go before anything else is measured.
  for (const row of [moray, run, failover]) await row(common);
} catch (err) {
  failed = err;
} finally {
  await undoAll();
}
if (failed) throw failed;
const missed = results.filter(({ok}) => !ok);
console.log(`\n${results.length - missed.length} of ${results.length} reach their target${missed.length ? `; missed: ${missed.map(({title, value}) => `${title} (${value.toFixed(2)})`).join(', ')}` : ''}`);
