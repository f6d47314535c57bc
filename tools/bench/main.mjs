// Cetus beside the distribution's dockerd: the same work, alternated in one run on one machine, medians and the ratio Cetus/dockerd.
//   make bench            all rows          BENCH_ROWS=run,exec make bench   some of them
//   BENCH_TIMES=3 make bench   three times as many samples of each row
// The machine's own speed drifts; only the ratios of one run are to be quoted. The rows are in rows/, a file per group: a function that is given
// everything below and calls `row`. What a group leaves behind it takes away, except the last one.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {docker, piped, quietDisk} from './client.mjs';
import {startCetus, startDockerd} from './engines.mjs';
import {rememberFirewall} from './firewall.mjs';
import {client} from './http.mjs';
import {busyboxArchive, startRegistry} from './images.mjs';
import {measure} from './measure.mjs';
import {printMemory} from './memory.mjs';
import build from './rows/build.mjs';
import compose from './rows/compose.mjs';
import create from './rows/create.mjs';
import files from './rows/files.mjs';
import images from './rows/images.mjs';
import parallel from './rows/parallel.mjs';
import ps from './rows/ps.mjs';
import run from './rows/run.mjs';
import stats from './rows/stats.mjs';
import streams from './rows/streams.mjs';

const GROUPS = [run, parallel, create, streams, files, stats, images, build, compose, ps];

const wanted = process.env.BENCH_ROWS?.split(',');
const factor = Number(process.env.BENCH_TIMES ?? 1);
if (!(factor >= 1)) throw new Error('BENCH_TIMES is a number of 1 or more');
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-bench-'));
// Postgres runs as a user of its own and must get through.
fs.chmodSync(dir, 0o711);

console.log('starting dockerd and cetus ...');
// Undone in reverse, whatever happens: also where one of the two does not even start, and on Ctrl-C.
const undo = [() => fs.rmSync(dir, {recursive: true, force: true}), rememberFirewall()];
let failed;
let measured;
let undoing;
const undoAll = () => (undoing ??= (async () => {
  for (const step of undo.reverse()) await Promise.resolve().then(step).catch((err) => { failed ??= err; });
})());
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void undoAll().then(() => process.exit(1)));
try {
  const dockerd = await startDockerd(dir);
  undo.push(() => dockerd.stop());
  const cetus = await startCetus(dir);
  undo.push(() => cetus.stop());
  const api = {cetus: client(cetus), dockerd: client(dockerd)};
  undo.push(() => Object.values(api).forEach((each) => each.close()));
  const registry = await startRegistry(dir);
  undo.push(() => registry.stop());
  const busybox = await busyboxArchive(dir);
  const engines = [cetus, dockerd];
  for (const engine of engines) await docker(engine, ['load', '-i', busybox]);
  printMemory('after the start and one small load', {cetus, dockerd});

  measured = measure({wanted, factor, engines: {cetus, dockerd}});
  measured.header();
  for (const group of GROUPS) await group({...measured, docker, piped, quietDisk, dir, api, engines, cetus, dockerd, registry});

  printMemory('at the end of these rows', {cetus, dockerd});
} catch (err) {
  failed = err;
} finally {
  await undoAll();
}
if (failed) throw failed;
console.log(`\n${measured.verdict()}`);
