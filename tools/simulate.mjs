/**
 * Schedules of the simulated cluster (test/model/manatee) by the million: `make simulate N=1000000`, or one of them to be read:
 *   node tools/simulate.mjs --seed 4711 --trace      every step of one seed
 *   node tools/simulate.mjs --seed 4711 --shrink     the same with as few faults as still show the violation
 *   node tools/simulate.mjs --count N [--from SEED] [--workers N] [--mutant NAME] [--record FILE]
 * It tells how far it is twice a minute, and ends with the table of all that happened; with status 1 where an invariant was violated, naming the seeds, and
 * with 130 where it was told to end before (Ctrl-C, SIGTERM): it says with which --from the rest is done. With --record it goes on there by itself, its sums too.
 */
import fs from 'node:fs';
import {createRequire} from 'node:module';
import os from 'node:os';
import {parseArgs} from 'node:util';
import {Worker, isMainThread, parentPort, workerData} from 'node:worker_threads';

const require = createRequire(import.meta.url);
require('./typescript-hook.cjs');
const {campaign} = require('../test/model/manatee/campaign');
const CHUNK = 200;
const TELL_MS = 30_000;

function work({mutant}) {
  // Nobody looks at the stacks of what a cut connection throws; a seed that is read has them.
  Error.stackTraceLimit = 0;
  parentPort.on('message', async ({from, count}) => parentPort.postMessage({from, part: await campaign.run(from, count, mutant)}));
  parentPort.postMessage(null);
}

async function main() {
  const {values} = parseArgs({options: {
    seed: {type: 'string'}, trace: {type: 'boolean'}, shrink: {type: 'boolean'}, mutant: {type: 'string'},
    count: {type: 'string', default: '10000'}, from: {type: 'string', default: '1'}, workers: {type: 'string'}, record: {type: 'string'},
  }});
  if (values.seed !== undefined) {
    const violated = await campaign.show(Number(values.seed), {trace: values.trace ?? false, shrink: values.shrink ?? false, mutant: values.mutant, print: (line) => console.log(line)});
    process.exit(violated ? 1 : 0);
  }
  const first = Number(values.from);
  const end = first + Number(values.count);
  const workers = Math.max(1, Number(values.workers ?? os.availableParallelism()));
  const done = new Done(first, end, values.record);
  if (done.until > first) console.log(`${values.record}: seeds ${first} to ${done.until - 1} are done, ${done.total.violations.length} violations`);

  let next = done.until;
  let ended = false;
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => {
    ended = true;
  });
  const progress = setInterval(() => console.log(done.line()), TELL_MS);
  await Promise.all(Array.from({length: workers}, () => new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), {workerData: {mutant: values.mutant}});
    worker.on('error', reject);
    worker.on('message', (answer) => {
      if (answer) {
        for (const {seed, kind, what} of answer.part.violations) console.log(`seed ${seed}: ${kind}: ${what}`);
        done.take(answer.from, answer.part);
      }
      if (ended || next >= end) return void worker.terminate().then(resolve);
      const count = Math.min(CHUNK, end - next);
      worker.postMessage({from: next, count});
      next += count;
    });
  })));
  clearInterval(progress);
  const {total} = done;
  for (const line of campaign.table(total)) console.log(line);
  for (const {seed, kind, what} of total.violations) console.log(`violation: seed ${seed}: ${kind}: ${what}`);
  console.log(`${done.rate().toFixed(0)} schedules/s with ${workers} threads, ${memory()}`);
  if (done.until < end) console.log(`ended before its time: the rest by --from ${done.until} --count ${end - done.until}`);
  console.log(`${total.schedules} schedules, ${total.violations.length} violations`);
  process.exitCode = total.violations.length ? 1 : done.until < end ? 130 : 0;
}

function memory() {
  return `${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MB`;
}

/** What is done of a range of seeds: without gaps from the first on, so that one number says where to go on. Threads end their parts in any order. */
class Done {
  total = campaign.empty();
  parts = new Map();
  began = Date.now();
  here = 0;

  constructor(first, end, file) {
    Object.assign(this, {first, end, file, until: first});
    if (!file || !fs.existsSync(file)) return;
    const found = JSON.parse(fs.readFileSync(file, 'utf8'));
    if (found.first !== first) throw new Error(`${file} is of the seeds from ${found.first} on, not from ${first}`);
    Object.assign(this, {until: found.until, total: found.total});
  }

  take(from, part) {
    this.here += part.schedules;
    this.parts.set(from, part);
    for (let ready = this.parts.get(this.until); ready; ready = this.parts.get(this.until)) {
      this.parts.delete(this.until);
      campaign.add(this.total, ready);
      this.until += ready.schedules;
    }
    if (!this.file) return;
    fs.writeFileSync(`${this.file}.new`, JSON.stringify({first: this.first, until: this.until, total: this.total}));
    fs.renameSync(`${this.file}.new`, this.file);
  }

  rate() {
    return this.here / Math.max(0.001, (Date.now() - this.began) / 1000);
  }

  line() {
    const {total, until, end} = this;
    const left = (end - until) / this.rate();
    const when = Number.isFinite(left) ? `, ends about ${new Date(Date.now() + left * 1000).toISOString().slice(0, 16).replace('T', ' ')} UTC` : '';
    return `${total.schedules} schedules (next seed ${until}), ${this.rate().toFixed(0)}/s${when}, ${total.takeovers} takeovers, ${total.acknowledged} acknowledged writes, ${total.violations.length} violations, ${memory()}`;
  }
}

if (isMainThread) await main();
else work(workerData);
