/** One edge over one fake datacenter, on a port of its own, closed after each test. */
import {silentLog} from '../../lib/base/log';
import {type DockerServer, type TlsOptions, createDockerServer} from '../../lib/docker/server';
import type {ListenAddress} from '../../lib/docker/listen';
import {FakeDatacenter} from './fake-datacenter';

export interface World { fake: FakeDatacenter; edge: DockerServer; address: ListenAddress; port: number; url: string }

const open: World[] = [];

export async function world(options: {listen?: ListenAddress; tls?: TlsOptions; maxJsonBytes?: number} = {}): Promise<World> {
  const fake = new FakeDatacenter();
  const edge = createDockerServer({
    datacenter: fake.datacenter(), log: silentLog(), config: {version: '0.1.0', ...(options.maxJsonBytes ? {maxJsonBytes: options.maxJsonBytes} : {})}, tls: options.tls,
  });
  const address = await edge.listen(options.listen ?? {host: '127.0.0.1', port: 0});
  const port = 'port' in address ? address.port : 0;
  const made = {fake, edge, address, port, url: `${options.tls ? 'https' : 'http'}://127.0.0.1:${port}`};
  open.push(made);
  return made;
}

export async function closeWorlds(): Promise<void> {
  await Promise.all(open.splice(0).map(({edge}) => edge.close()));
}

/** Polls a condition; the bound turns a hang into a failure that names what was awaited. */
export async function until(what: string, condition: () => boolean, boundMs = 30_000): Promise<void> {
  const end = Date.now() + boundMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited in vain for: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

