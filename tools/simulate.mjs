/**
 * Schedules of the simulated cluster (test/model/manatee) by the million: `make simulate N=1000000`, or one of them to be read:
 *   node tools/simulate.mjs --seed 4711 --trace      every step of one seed
 *   node tools/simulate.mjs --seed 4711 --shrink     the same with as few faults as still show the violation
 *   node tools/simulate.mjs --count N [--from SEED] [--workers N] [--mutant NAME]
 * Ends with status 1 where an invariant was violated, naming the seeds.
 */
import {createRequire} from 'node:module';
import os from 'node:os';
import {parseArgs} from 'node:util';
import {Worker, isMainThread, parentPort, workerData} from 'node:worker_threads';

const require = createRequire(import.meta.url);
require('./typescript-hook.cjs');
const {campaign} = require('../test/model/manatee/campaign');
const CHUNK = 200;

if (isMainThread) await main();
else await work(workerData);

async function work({mutant}) {
  parentPort.on('message', async ({from, count}) => parentPort.postMessage(await campaign.run(from, count, mutant)));
  parentPort.postMessage(null);
}

async function main() {
  const {values} = parseArgs({options: {seed: {type: 'string'}, trace: {type: 'boolean'}, shrink: {type: 'boolean'}, count: {type: 'string', default: '10000'}, from: {type: 'string', default: '1'}, workers: {type: 'string'}, mutant: {type: 'string'}}});
  if (values.seed !== undefined) {
    const violated = await campaign.show(Number(values.seed), {trace: values.trace ?? false, shrink: values.shrink ?? false, mutant: values.mutant, print: (line) => console.log(line)});
    process.exit(violated ? 1 : 0);
  }
  const first = Number(values.from);
  const end = first + Number(values.count);
  const total = campaign.empty();
  let next = first;
  const began = Date.now();
  const rate = () => total.schedules / Math.max(0.001, (Date.now() - began) / 1000);
  const progress = setInterval(() => console.log(`${total.schedules} schedules, ${rate().toFixed(0)}/s, ${total.takeovers} takeovers, ${total.acknowledged} acknowledged writes, ${total.violations.length} violations`), 10_000);
  const workers = Math.max(1, Number(values.workers ?? os.availableParallelism()));
  await Promise.all(Array.from({length: workers}, () => new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), {workerData: {mutant: values.mutant}});
    worker.on('error', reject);
    worker.on('message', (part) => {
      if (part) {
        campaign.add(total, part);
        for (const {seed, kind, what} of part.violations) console.log(`seed ${seed}: ${kind}: ${what}`);
      }
      if (next >= end) return void worker.terminate().then(resolve);
      const count = Math.min(CHUNK, end - next);
      worker.postMessage({from: next, count});
      next += count;
    });
  })));
  clearInterval(progress);
  for (const line of campaign.table(total)) console.log(line);
  console.log(`${rate().toFixed(0)} schedules/s with ${workers} threads`);
  console.log(`${total.schedules} schedules, ${total.violations.length} violations`);
  process.exitCode = total.violations.length ? 1 : 0;
}
