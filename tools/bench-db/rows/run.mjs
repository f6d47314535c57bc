// What `docker run` pays for a store of three peers: two of ours in turn, one on the cluster, one on the single Postgres that `cetus up` brings along.
import {docker} from '../../bench/client.mjs';
import {startCetus} from '../../bench/engines.mjs';
import {busyboxArchive} from '../../bench/images.mjs';

const RUNS = 20;
const TARGET = 1.15;

export default async function run({cluster, dir, undo, line, result, isWanted}) {
  if (!isWanted('run')) return;
  const system = await cluster();
  const busybox = await busyboxArchive(dir);
  const replicated = await startCetus(dir, {name: 'replicated', args: ['--zookeeper', system.zookeeper.servers, '--zookeeper-path', system.zookeeper.path, '--postgres-password-file', system.passwordFile]});
  undo.push(() => replicated.stop());
  const embedded = await startCetus(dir, {name: 'embedded'});
  undo.push(() => embedded.stop());
  const engines = [replicated, embedded];
  for (const engine of engines) await docker(engine, ['load', '-i', busybox]);
  const took = new Map(engines.map((engine) => [engine, []]));
  for (let n = -2; n < RUNS; n += 1)
    for (const engine of n % 2 ? engines : [...engines].reverse()) {
      const from = performance.now();
      await docker(engine, ['run', '--rm', 'busybox', 'true']);
      if (n >= 0) took.get(engine).push(performance.now() - from);
    }
  const [ours, single] = engines.map((engine) => median(took.get(engine)));
  line(['', '', 'cluster ms', 'single ms', 'ratio']);
  result('docker run on the cluster, of a single Postgres', ours / single, TARGET, ['docker run --rm', '', ours.toFixed(0), single.toFixed(0), (ours / single).toFixed(2)], 'most');
}

const median = (xs) => [...xs].sort((a, b) => a - b)[Math.floor(xs.length / 2)];
