// Key `cp`: a file of 500 MB into a container and out of it.
import {randomBytes} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {timed} from '../measure.mjs';

const BYTES = 500_000_000;

export default async function files({row, isWanted, docker, quietDisk, dir, engines}) {
  if (!isWanted('cp')) return;
  const source = path.join(dir, 'cp-source');
  const target = path.join(dir, 'cp-target');
  // Nothing that a file system could leave out.
  const out = fs.openSync(source, 'w');
  for (let left = BYTES; left > 0;) left -= fs.writeSync(out, randomBytes(Math.min(left, 10_000_000)));
  fs.closeSync(out);
  for (const engine of engines) await docker(engine, ['run', '-d', '--name', 'copied', 'busybox', 'sleep', '100000']);
  const exec = (engine, ...args) => docker(engine, ['exec', 'copied', ...args]);
  await row('cp', 'docker cp of 500 MB into a container', 5, 1, async (engine) => {
    quietDisk();
    const took = await timed(() => docker(engine, ['cp', source, 'copied:/big']));
    await exec(engine, 'sh', '-c', `test "$(stat -c %s /big)" = ${BYTES} && mv /big /kept`);
    return took;
  });
  await row('cp', 'docker cp of 500 MB out of a container', 5, 1, async (engine) => {
    quietDisk();
    const took = await timed(() => docker(engine, ['cp', 'copied:/kept', target]));
    if (fs.statSync(target).size !== BYTES) throw new Error(`${engine.name}: the copy has ${fs.statSync(target).size} bytes`);
    fs.rmSync(target);
    return took;
  });
  for (const engine of engines) await docker(engine, ['rm', '-f', 'copied']);
  fs.rmSync(source);
}
