// Key `ps`: lists of a thousand containers. It leaves them behind, so it comes last.
export default async function lists({row, isWanted, docker, engines, api}) {
  if (!isWanted('ps')) return;
  for (const engine of engines)
    for (let n = 0; n < 1000; n += 10)
      await Promise.all(Array.from({length: 10}, (_, i) => api[engine.name].call('POST', `/containers/create?name=many-${n + i}`, {Image: 'busybox', Cmd: ['true'], Labels: {n: String(n + i)}})));
  await row('ps', 'GET /containers/json, 1,000 containers', 21, 1, (engine) => api[engine.name].call('GET', '/containers/json?all=1').then((list) => { if (list.length < 1000) throw new Error(`${engine.name}: ${list.length} listed`); }), {warmup: 3});
  await row('ps', 'docker ps -a, 1,000 containers', 9, 1, (engine) => docker(engine, ['ps', '-a']));
}
