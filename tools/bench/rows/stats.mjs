// Key `stats`: what a hundred running containers use, once each.
const MANY = 100;

export default async function stats({row, isWanted, docker, engines, api}) {
  if (!isWanted('stats')) return;
  const made = {cetus: [], dockerd: []};
  for (const engine of engines) {
    const {call} = api[engine.name];
    for (let n = 0; n < MANY; n += 5)
      await Promise.all(Array.from({length: 5}, async () => {
        const {Id} = await call('POST', '/containers/create', {Image: 'busybox', Cmd: ['sleep', '100000']});
        await call('POST', `/containers/${Id}/start`);
        made[engine.name].push(Id);
      }));
  }
  await row('stats', `docker stats --no-stream of ${MANY} containers`, 5, 1, (engine) => docker(engine, ['stats', '--no-stream', ...made[engine.name]]), {warmup: 1});
  for (const engine of engines)
    for (const id of made[engine.name]) await api[engine.name].call('DELETE', `/containers/${id}?force=1`);
}
