// What the way between two containers on two nodes costs, as a ratio to the way between the two nodes themselves (their namespaces' underlay):
//   make bench-network                     throughput (iperf3) and latency (request and response over TCP, and over UDP)
//   BENCH_ROUNDS=31 make bench-network     more slices of each than 15
//   BENCH_ROWS=tcp,udp make bench-network  some of it
//   BENCH_DATA=DIR make bench-network      on a fleet that runs already there (`cetus fleet --data DIR`), of at least two nodes
// The two sides take turns, slice by slice; a ratio is the median over neighbouring slices, since the machine's own speed drifts. Latency is measured at real-time
// priority, since a round of 30 us is else lost among the turns that others take of the processors; once with both ends on one processor, where nothing but the way
// of the packets counts, and once on two, where both sides wait for the other processor to wake up.
import {execFile, execFileSync, spawn} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';

const PROGRAM = path.resolve('dist/main/cetus.js');
const ECHO = path.resolve('tools/bench-network/echo.pl');
const READY_MS = 180_000;
const THROUGHPUT_SECONDS = '1';
const LATENCY_SECONDS = '0.1';
const SLICE_MS = 20_000;
const PORT = 5201;

const rounds = Number(process.env.BENCH_ROUNDS ?? 15);
if (!(rounds >= 1)) throw new Error('BENCH_ROUNDS is 1 or more');
const median = (xs) => [...xs].sort((a, b) => a - b)[Math.floor(xs.length / 2)];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const exec = promisify(execFile);

// Undone in reverse, whatever happens, also on Ctrl-C.
const undo = [];
let failed;
let undoing;
const undoAll = () => (undoing ??= (async () => {
  while (undo.length) await Promise.resolve().then(undo.pop()).catch((err) => { failed ??= err; });
})());
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => void undoAll().then(() => process.exit(1)));

async function waitFor(what, probe) {
  let last;
  for (const end = Date.now() + READY_MS; ;) {
    try {
      const value = await probe();
      if (value) return value;
    } catch (err) { last = err; }
    if (Date.now() > end) throw new Error(`${what} did not happen in ${READY_MS / 1000} s`, {cause: last});
    await sleep(50);
  }
}

const running = (dir) => JSON.parse(fs.readFileSync(path.join(dir, 'run', 'up.json'), 'utf8'));

/** A fleet of two nodes for this run. */
async function startFleet() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-bench-network-'));
  // Postgres runs as a user of its own and must get through.
  fs.chmodSync(dir, 0o711);
  undo.push(() => fs.rmSync(dir, {recursive: true, force: true}));
  const log = fs.openSync(path.join(dir, 'fleet.log'), 'w');
  const child = spawn(process.execPath, [PROGRAM, 'fleet', '--data', dir, '--nodes', '2', '--listen', '127.0.0.1:0'], {stdio: ['ignore', log, log], detached: true});
  fs.closeSync(log);
  const gone = new Promise((resolve) => child.once('exit', resolve));
  undo.push(async () => {
    child.kill('SIGTERM');
    await gone;
  });
  await waitFor('the fleet', () => {
    if (child.exitCode !== null) throw new Error(fs.readFileSync(path.join(dir, 'fleet.log'), 'utf8').slice(-2000));
    return running(dir);
  });
  const archive = path.join(dir, 'busybox.tar');
  execFileSync(process.execPath, ['tools/make-busybox-image.mjs', archive], {stdio: 'ignore'});
  await docker(dir)('load', '-i', archive);
  return dir;
}

const docker = (dir) => async (...args) => (await exec('docker', args, {env: {...process.env, DOCKER_HOST: running(dir).listen[0]}})).stdout.trim();

const ONE_PROCESSOR = ['chrt', '-f', '40', 'taskset', '-c', '0'];
const TWO_PROCESSORS = ['chrt', '-f', '40', 'taskset', '-c', '1'];

/** A process in this network namespace, until the end of the measurement. */
function serve(namespace, ...command) {
  const child = spawn('nsenter', [`--net=${namespace}`, ...command], {stdio: 'ignore'});
  undo.push(() => { child.kill('SIGKILL'); });
}

const within = async (namespace, ...command) => (await exec('nsenter', [`--net=${namespace}`, ...command], {timeout: SLICE_MS})).stdout;

/** Two places that can reach each other; `to` listens. */
async function side(name, from, to, address) {
  serve(to, 'iperf3', '-s', '-p', String(PORT));
  for (const protocol of ['tcp', 'udp']) serve(to, ...ONE_PROCESSOR, 'perl', ECHO, 'serve', protocol, String(PORT + 1));
  const round = async (protocol, seconds, where) => Number(await within(from, ...where, 'perl', ECHO, protocol, address, String(PORT + 1), seconds));
  await waitFor(`${name} to be reached`, () => round('tcp', '0.01', []));
  return {
    name,
    throughput: async () => {
      const {end} = JSON.parse(await within(from, 'iperf3', '-J', '-c', address, '-p', String(PORT), '-t', THROUGHPUT_SECONDS));
      return end.sum_received.bits_per_second / 1e9;
    },
    tcp: () => round('tcp', LATENCY_SECONDS, ONE_PROCESSOR),
    udp: () => round('udp', LATENCY_SECONDS, ONE_PROCESSOR),
    'tcp-two': () => round('tcp', LATENCY_SECONDS, TWO_PROCESSORS),
  };
}

const ROWS = [
  {key: 'throughput', title: 'TCP throughput, Gbit/s', target: 0.7, reached: (ratio) => ratio >= 0.7, sign: '>='},
  {key: 'tcp', title: 'TCP request and response, us', target: 1.5, reached: (ratio) => ratio <= 1.5, sign: '<='},
  {key: 'udp', title: 'UDP request and response, us', target: 1.5, reached: (ratio) => ratio <= 1.5, sign: '<='},
  {key: 'tcp-two', title: '... TCP, over two processors, us', target: 1.5, reached: (ratio) => ratio <= 1.5, sign: '<='},
];

const wanted = process.env.BENCH_ROWS?.split(',') ?? ROWS.map(({key}) => key);
const rows = ROWS.filter(({key}) => wanted.includes(key));
if (rows.length < wanted.length) throw new Error(`BENCH_ROWS: some of ${ROWS.map(({key}) => key).join(',')}`);

async function measure() {
  const dir = process.env.BENCH_DATA ?? await startFleet();
  const {nodes} = running(dir);
  const ask = docker(dir);
  const names = [];
  undo.push(async () => { if (names.length) await ask('rm', '-f', ...names); });
  const container = async (node) => {
    const name = `bench-network-${process.pid}-${node.number}`;
    await ask('run', '-d', '--name', name, '-e', `constraint:node==${node.name}`, 'busybox', 'sleep', '100000');
    names.push(name);
    const [pid, address] = (await ask('inspect', '-f', '{{.State.Pid}} {{.NetworkSettings.IPAddress}}', name)).split(' ');
    return {namespace: `/proc/${pid}/ns/net`, address};
  };
  const [a, b] = nodes;
  const [inA, inB] = [await container(a), await container(b)];
  const underlay = await side('the underlay', `/run/netns/${a.namespace}`, `/run/netns/${b.namespace}`, b.address);
  const network = await side('the network', inA.namespace, inB.namespace, inB.address);

  console.log(`${''.padEnd(32)} ${'containers'.padStart(11)} ${'underlay'.padStart(11)} ${'ratio'.padStart(7)}`);
  const missed = [];
  for (const {key, title, target, reached, sign} of rows) {
    const [ours, theirs, ratios] = [[], [], []];
    for (let n = 0; n < rounds; n += 1) {
      const first = n % 2 ? underlay : network;
      const before = await first[key]();
      const after = await (first === underlay ? network : underlay)[key]();
      const [mine, its] = first === network ? [before, after] : [after, before];
      ours.push(mine);
      theirs.push(its);
      ratios.push(mine / its);
    }
    const ratio = median(ratios);
    if (!reached(ratio)) missed.push(`${title} (${ratio.toFixed(2)})`);
    console.log(`${title.padEnd(32)} ${median(ours).toFixed(1).padStart(11)} ${median(theirs).toFixed(1).padStart(11)} ${ratio.toFixed(2).padStart(7)}  ${reached(ratio) ? 'ok  ' : 'MISS'} (${sign} ${target}, n=${rounds})`);
  }
  console.log(`\n${rows.length - missed.length} of ${rows.length} reach their target${missed.length ? `; missed: ${missed.join(', ')}` : ''}`);
}

try {
  await measure();
} catch (err) {
  failed ??= err;
} finally {
  await undoAll();
}
if (failed) throw failed;
