// Key `create`: the steps of a container's life one by one, over HTTP.
export default async function lifecycle({row, api}) {
  const made = {cetus: [], dockerd: []};
  await row('create', 'HTTP create', 15, 1, async (engine) => { made[engine.name].push((await api[engine.name].call('POST', '/containers/create', {Image: 'busybox', Cmd: ['sleep', '1000']})).Id); }, {warmup: 2});
  if (!made.cetus.length) return;
  const queue = (name) => { const list = [...made[name]]; return () => list.shift(); };
  let next = {cetus: queue('cetus'), dockerd: queue('dockerd')};
  await row('create', 'HTTP start', 15, 1, (engine) => api[engine.name].call('POST', `/containers/${next[engine.name]()}/start`), {warmup: 2});
  const one = {cetus: made.cetus[0], dockerd: made.dockerd[0]};
  await row('create', 'HTTP exec (create, start, output, exit code)', 21, 0.7, (engine) => api[engine.name].exec(one[engine.name], ['true']), {warmup: 3});
  next = {cetus: queue('cetus'), dockerd: queue('dockerd')};
  await row('create', 'HTTP stop (SIGKILL at once)', 15, 1, (engine) => api[engine.name].call('POST', `/containers/${next[engine.name]()}/stop?t=0`), {warmup: 2});
  next = {cetus: queue('cetus'), dockerd: queue('dockerd')};
  await row('create', 'HTTP rm', 15, 1, (engine) => api[engine.name].call('DELETE', `/containers/${next[engine.name]()}`), {warmup: 2});
}
