// Keys `attach` and `logs`: what a process prints and reads, in bulk.
const GiB = 1 << 30;
const TEXT = 'yes abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz012345678';

export default async function streams({row, isWanted, docker, piped, engines}) {
  await row('attach', 'attach: 1 GiB from stdout', 3, 1, (engine) => docker(engine, ['run', '--rm', 'busybox', 'sh', '-c', `${TEXT} | head -c ${GiB}`]).then((n) => { if (n !== GiB) throw new Error(`${engine.name}: ${n} bytes of ${GiB}`); }), {warmup: 0});
  await row('attach', 'attach: 1 GiB into stdin', 3, 1, (engine) => piped(engine, `head -c ${GiB} /dev/zero`, `run -i --rm busybox sh -c 'test "$(wc -c)" = ${GiB}'`), {warmup: 0});
  if (!isWanted('logs')) return;
  for (const engine of engines) await docker(engine, ['run', '--name', 'talker', 'busybox', 'sh', '-c', `${TEXT} | head -c 100000000`]);
  await row('logs', 'docker logs of 100 MB', 5, 1, (engine) => docker(engine, ['logs', 'talker']).then((n) => { if (n !== 100_000_000) throw new Error(`${engine.name}: ${n} bytes of the log`); }));
  for (const engine of engines) await docker(engine, ['rm', 'talker']);
}
