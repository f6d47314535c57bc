/** What a pull leaves at the registry when it is given up: no connection stays longer than the client itself wants, whatever the registry offers. */
import http from 'node:http';
import {DEFAULT_LIMITS} from '../../../lib/agent/images/limits';
import {Repository} from '../../../lib/agent/images/registry/client';
import {discard, Transport} from '../../../lib/agent/images/registry/transport';
import {systemClock} from '../../../lib/base/clock';
import {until} from '../../harness/wait';
import {type Handler, LyingRegistry} from './lying-registry';

/** The client keeps idle ones for four seconds. */
const PATIENCE_MS = 30_000;
const digest = `sha256:${'1'.repeat(64)}`;
const BLOB = `/v2/team/app/blobs/${digest}`;
const MANIFEST = '/v2/team/app/manifests/1';

/** Of a gigabyte the beginning. */
const begins: Handler = (_req, res) => void res.writeHead(200, {'content-length': 1 << 30}).write(Buffer.alloc(100_000));
const silent: Handler = () => undefined;
let registry: LyingRegistry;
let transport: Transport;
beforeEach(async () => {
  // undici opens connections anew for requests that were given up, and believes what it was told of the first.
  registry = await new LyingRegistry().lingers(600_000).start();
  transport = new Transport({limits: DEFAULT_LIMITS});
});
afterEach(async () => {
  await transport.close();
  await registry.stop();
});
const repository = (signal: AbortSignal): Repository =>
  new Repository({transport, reference: {registry: registry.host, repository: 'team/app', tag: '1'}, auth: undefined, limits: DEFAULT_LIMITS, clock: systemClock, signal});
const noneLeft = (): Promise<boolean> => until('the registry to have no connection', async () => registry.open.size === 0, PATIENCE_MS);

test.each<[string, Handler]>([['whose layers are on their way', begins], ['whose layers have not begun', silent]])('a pull that is given up, %s', async (_, handler) => {
  registry.paths.set(BLOB, handler);
  const leaving = new AbortController();
  const pull = repository(leaving.signal);
  const layers = [1, 2, 3].map(async () => {
    const {body} = await pull.blob(digest, 0, leaving.signal);
    for await (const _chunk of body) void _chunk;
  });
  const ended = Promise.allSettled(layers);
  await until('three layers to be asked for', async () => registry.to(BLOB).length === 3, PATIENCE_MS);
  leaving.abort(new Error('the client has left'));
  expect((await ended).map((e) => e.status)).toEqual(['rejected', 'rejected', 'rejected']);
  await noneLeft();
}, 60_000);

test('a pull that is given up while it connects', async () => {
  for (let n = 0; n < 10; n += 1) {
    const leaving = new AbortController();
    const asked = repository(leaving.signal).reach();
    leaving.abort(new Error('the client has left'));
    await expect(asked).rejects.toThrow();
  }
  await noneLeft();
}, 60_000);

test('a pull that has found nothing, at a registry that offers to wait for more', async () => {
  registry.paths.set(MANIFEST, (_req, res) => { res.statusCode = 404; res.end('{}'); });
  await expect(repository(new AbortController().signal).manifest('1')).rejects.toMatchObject({kind: 'notFound'});
  await noneLeft();
}, 60_000);

test('an answer that nobody wants and that never ends', async () => {
  let sent: http.ServerResponse | undefined;
  registry.paths.set(MANIFEST, (_req, res) => { sent = res; begins(_req, res); });
  const answer = await transport.send({method: 'GET', url: new URL(`http://${registry.host}${MANIFEST}`), signal: new AbortController().signal});
  await discard(answer);
  expect(sent?.writableFinished).toBe(false);
  await noneLeft();
}, 60_000);
