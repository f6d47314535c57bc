// Cetus beside the distribution's dockerd: the same work, alternated in one run on one machine, medians and the ratio Cetus/dockerd.
//   make bench            all rows          BENCH_ROWS=run,exec make bench   some of them
//   BENCH_TIMES=3 make bench   three times as many samples of each row
// The machine's own speed drifts; only the ratios of one run are to be quoted.
import {execFileSync, spawn} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {startCetus, startDockerd} from './engines.mjs';
import {rememberFirewall} from './firewall.mjs';
import {client} from './http.mjs';
import {busyboxArchive, bigArchive, startRegistry} from './images.mjs';

const wanted = process.env.BENCH_ROWS?.split(',');
const factor = Number(process.env.BENCH_TIMES ?? 1);
if (!(factor >= 1)) throw new Error('BENCH_TIMES is a number of 1 or more');
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-bench-'));
// Postgres runs as a user of its own and must get through.
fs.chmodSync(dir, 0o711);
const rows = [];
const median = (xs) => [...xs].sort((a, b) => a - b)[Math.floor(xs.length / 2)];

/** Runs `work(engine, n)` for the two in turn; work returns {ms}, the milliseconds that count, or its whole time is taken. */
async function row(key, title, times, target, work, {warmup = 1} = {}) {
  if (wanted && !wanted.includes(key)) return;
  times = Math.round(times * factor);
  const samples = {cetus: [], dockerd: []};
  for (let n = -warmup; n < times; n += 1)
    for (const engine of n % 2 ? [cetus, dockerd] : [dockerd, cetus]) {
      const from = process.hrtime.bigint();
      const counted = await work(engine, n);
      if (n >= 0) samples[engine.name].push(counted?.ms ?? Number(process.hrtime.bigint() - from) / 1e6);
    }
  const [ours, theirs] = [median(samples.cetus), median(samples.dockerd)];
  rows.push({title, ours, theirs, ratio: ours / theirs, target, times});
  console.log(`${title.padEnd(44)} ${ours.toFixed(1).padStart(10)} ${theirs.toFixed(1).padStart(10)} ${(ours / theirs).toFixed(2).padStart(7)}  ${ours / theirs <= target ? 'ok  ' : 'MISS'} (<= ${target}, n=${times})`);
}

function docker(engine, args, {stdin, allow = [0]} = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn('docker', ['-H', engine.host, ...args], {stdio: [stdin ?? 'ignore', 'pipe', 'pipe']});
    let err = '';
    let bytes = 0;
    child.stdout.on('data', (c) => { bytes += c.length; });
    child.stderr.on('data', (c) => { err = (err + c).slice(-2000); });
    child.once('error', reject);
    child.once('close', (code) => (allow.includes(code) ? resolve(bytes) : reject(new Error(`${engine.name}: docker ${args.join(' ')}: ${code} ${err}`))));
  });
}

/** `docker ARGS` fed by a shell pipeline, as a person would. */
const piped = (engine, producer, args) => new Promise((resolve, reject) => {
  const child = spawn('sh', ['-c', `${producer} | docker -H ${engine.host} ${args}`], {stdio: ['ignore', 'ignore', 'inherit']});
  child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${engine.name}: ${args}: ${code}`))));
});

/**
 * Each engine's processes, resident (RSS) and proportional (PSS) MiB. Pages that processes share (the Node binary, Postgres' buffers) count
 * in full in each one's RSS; only PSS sums are what the machine gives. Shims and containers are not there: none runs by then.
 */
function printMemory(when) {
  console.log(`\nmemory in MiB ${when}: resident (shared pages counted in each process) / proportional (shared pages shared out)`);
  const sums = {};
  for (const engine of [cetus, dockerd]) {
    const byName = new Map();
    const sum = {resident: 0, proportional: 0};
    for (const p of engine.processes()) {
      const of = byName.get(p.name) ?? {resident: 0, proportional: 0, count: 0};
      byName.set(p.name, of);
      of.count += 1;
      for (const each of [of, sum]) {
        each.resident += p.residentKib / 1024;
        each.proportional += p.proportionalKib / 1024;
      }
    }
    sums[engine.name] = sum;
    const line = [...byName].map(([name, of]) => `${name}${of.count > 1 ? ` (${of.count} processes)` : ''} ${of.resident.toFixed(0)}/${of.proportional.toFixed(0)}`);
    console.log(`  ${engine.name}: ${line.join(', ')}; sum ${sum.resident.toFixed(0)}/${sum.proportional.toFixed(0)}`);
  }
  const ratio = (measure) => (sums.cetus[measure] / sums.dockerd[measure]).toFixed(2);
  console.log(`  ratio: ${ratio('resident')} resident, ${ratio('proportional')} proportional (<= 1)`);
}

// What one engine left for the kernel to write would be the next one's wait: that one flushes what it stored, dockerd does not.
const quietDisk = () => execFileSync('sync');

console.log('starting dockerd and cetus ...');
// Undone in reverse, whatever happens: also where one of the two does not even start, and on Ctrl-C.
const undo = [() => fs.rmSync(dir, {recursive: true, force: true}), rememberFirewall()];
let failed;
let dockerd;
let cetus;
let api;
let undoing;
const undoAll = () => (undoing ??= (async () => {
  for (const step of undo.reverse()) await Promise.resolve().then(step).catch((err) => { failed ??= err; });
})());
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void undoAll().then(() => process.exit(1)));
try {
  dockerd = await startDockerd(dir);
  undo.push(() => dockerd.stop());
  cetus = await startCetus(dir);
  undo.push(() => cetus.stop());
  api = {cetus: client(cetus), dockerd: client(dockerd)};
  undo.push(() => Object.values(api).forEach((each) => each.close()));
  const registry = await startRegistry(dir);
  undo.push(() => registry.stop());
  const busybox = await busyboxArchive(dir);
  for (const engine of [cetus, dockerd]) await docker(engine, ['load', '-i', busybox]);
  const GiB = 1 << 30;
  printMemory('after the start and one small load');

  console.log(`${''.padEnd(44)} ${'cetus ms'.padStart(10)} ${'dockerd ms'.padStart(10)} ${'ratio'.padStart(7)}`);
  await row('run', 'docker run --rm busybox true', 21, 0.5, (engine) => docker(engine, ['run', '--rm', 'busybox', 'true']), {warmup: 3});

  const made = {cetus: [], dockerd: []};
  await row('create', 'HTTP create', 15, 1, async (engine) => { made[engine.name].push((await api[engine.name].call('POST', '/containers/create', {Image: 'busybox', Cmd: ['sleep', '1000']})).Id); }, {warmup: 2});
  const queue = (name) => { const list = [...made[name]]; return () => list.shift(); };
  if (made.cetus.length) {
    let next = {cetus: queue('cetus'), dockerd: queue('dockerd')};
    await row('create', 'HTTP start', 15, 1, (engine) => api[engine.name].call('POST', `/containers/${next[engine.name]()}/start`), {warmup: 2});
    const one = {cetus: made.cetus[0], dockerd: made.dockerd[0]};
    await row('create', 'HTTP exec (create, start, output, exit code)', 21, 0.7, (engine) => api[engine.name].exec(one[engine.name], ['true']), {warmup: 3});
    next = {cetus: queue('cetus'), dockerd: queue('dockerd')};
    await row('create', 'HTTP stop (SIGKILL at once)', 15, 1, (engine) => api[engine.name].call('POST', `/containers/${next[engine.name]()}/stop?t=0`), {warmup: 2});
    next = {cetus: queue('cetus'), dockerd: queue('dockerd')};
    await row('create', 'HTTP rm', 15, 1, (engine) => api[engine.name].call('DELETE', `/containers/${next[engine.name]()}`), {warmup: 2});
  }

  const text = 'yes abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz012345678';
  await row('attach', 'attach: 1 GiB from stdout', 3, 1, (engine) => docker(engine, ['run', '--rm', 'busybox', 'sh', '-c', `${text} | head -c ${GiB}`]).then((n) => { if (n !== GiB) throw new Error(`${engine.name}: ${n} bytes of ${GiB}`); }), {warmup: 0});
  await row('attach', 'attach: 1 GiB into stdin', 3, 1, (engine) => piped(engine, `head -c ${GiB} /dev/zero`, `run -i --rm busybox sh -c 'test "$(wc -c)" = ${GiB}'`), {warmup: 0});

  if (!wanted || wanted.includes('logs')) {
    for (const engine of [cetus, dockerd]) await docker(engine, ['run', '--name', 'talker', 'busybox', 'sh', '-c', `${text} | head -c 100000000`]);
    await row('logs', 'docker logs of 100 MB', 5, 1, (engine) => docker(engine, ['logs', 'talker']).then((n) => { if (n !== 100_000_000) throw new Error(`${engine.name}: ${n} bytes of the log`); }));
    for (const engine of [cetus, dockerd]) await docker(engine, ['rm', 'talker']);
  }

  if (!wanted || wanted.includes('images')) {
    const big = await bigArchive(dir, randomBytes);
    await row('images', 'docker load of 200 MB', 5, 1, async (engine) => {
      quietDisk();
      const from = process.hrtime.bigint();
      await docker(engine, ['load', '-i', big]);
      const ms = Number(process.hrtime.bigint() - from) / 1e6;
      await docker(engine, ['rmi', '-f', 'big:latest']);
      return {ms};
    });
    const reference = await registry.push(dockerd, big, 'big');
    await row('images', 'docker pull of 200 MB', 5, 1, async (engine) => {
      quietDisk();
      const from = process.hrtime.bigint();
      await docker(engine, ['pull', '-q', reference]);
      const ms = Number(process.hrtime.bigint() - from) / 1e6;
      await docker(engine, ['rmi', '-f', reference]);
      return {ms};
    });
  }

  if (!wanted || wanted.includes('ps')) {
    for (const engine of [cetus, dockerd])
      for (let n = 0; n < 1000; n += 10)
        await Promise.all(Array.from({length: 10}, (_, i) => api[engine.name].call('POST', `/containers/create?name=many-${n + i}`, {Image: 'busybox', Cmd: ['true'], Labels: {n: String(n + i)}})));
    await row('ps', 'GET /containers/json, 1,000 containers', 21, 1, (engine) => api[engine.name].call('GET', '/containers/json?all=1').then((list) => { if (list.length < 1000) throw new Error(`${engine.name}: ${list.length} listed`); }), {warmup: 3});
    await row('ps', 'docker ps -a, 1,000 containers', 9, 1, (engine) => docker(engine, ['ps', '-a']));
  }

  printMemory('at the end of these rows');
} catch (err) {
  failed = err;
} finally {
  await undoAll();
}
if (failed) throw failed;
const missed = rows.filter((r) => r.ratio > r.target);
console.log(`\n${rows.length - missed.length} of ${rows.length} rows reach their target${missed.length ? `; missed: ${missed.map((r) => `${r.title} (${r.ratio.toFixed(2)})`).join(', ')}` : ''}`);
