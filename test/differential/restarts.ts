/** What a restart policy does to a container, as its events tell: how long each pause was, and how it ended. */
import {type Endpoint, send} from '../harness/requests';
import {until} from '../harness/wait';
import {filters} from './step';

export interface Restarts {
  /** Between an end and the start that follows it. */
  pausesMs: number[];
  /** As RestartCount says. */
  count: number;
  exitCode: number;
  status: string;
}

const BOUND_MS = 90_000;

/** Of a container that ends by itself for good. */
export async function restartsOf(endpoint: Endpoint, name: string, command: string, policy: {Name: string; MaximumRetryCount?: number}): Promise<Restarts> {
  const ask = async (method: string, path: string, body?: object): Promise<string> => {
    const {status, body: answer} = await send(endpoint, {method, path, ...(body ? {body: JSON.stringify(body), headers: {'Content-Type': 'application/json'}} : {})});
    if (status >= 400) throw new Error(`${method} ${path}: ${status} ${answer.toString()}`);
    return answer.toString();
  };
  await ask('POST', `/containers/create?name=${name}`, {Image: 'busybox', Cmd: ['sh', '-c', command], HostConfig: {RestartPolicy: policy}});
  await ask('POST', `/containers/${name}/start`);
  const {RestartCount: count, State} = await until(`${name} to end for good`, async () => {
    const container = JSON.parse(await ask('GET', `/containers/${name}/json`)) as {RestartCount: number; State: {Status: string; ExitCode: number}};
    return container.State.Status === 'exited' && container;
  }, BOUND_MS);
  const told = await ask('GET', `/events?since=0&until=${(Date.now() / 1000).toFixed(3)}&${filters({container: [name], event: ['start', 'die']})}`);
  await ask('DELETE', `/containers/${name}`);
  const events = told.trim().split('\n').map((line) => JSON.parse(line) as {Action: string; timeNano: number});
  const pausesMs = events.flatMap(({Action, timeNano}, n) => (n > 0 && Action === 'start' ? [(timeNano - events[n - 1]!.timeNano) / 1e6] : []));
  return {pausesMs, count, exitCode: State.ExitCode, status: State.Status};
}
