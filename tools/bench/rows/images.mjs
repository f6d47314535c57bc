// Key `images`: an image of 200 MB, from a file and from a registry.
import {randomBytes} from 'node:crypto';
import {timed} from '../measure.mjs';
import {bigArchive} from '../images.mjs';

export default async function images({row, isWanted, docker, quietDisk, dir, registry, dockerd}) {
  if (!isWanted('images')) return;
  const big = await bigArchive(dir, randomBytes);
  const whole = (title, args, image) => row('images', title, 5, 1, async (engine) => {
    quietDisk();
    const took = await timed(() => docker(engine, args));
    await docker(engine, ['rmi', '-f', image]);
    return took;
  });
  await whole('docker load of 200 MB', ['load', '-i', big], 'big:latest');
  const reference = await registry.push(dockerd, big, 'big');
  await whole('docker pull of 200 MB', ['pull', '-q', reference], reference);
}
