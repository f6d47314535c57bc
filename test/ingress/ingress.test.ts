/** An ingress over publications in memory and real sockets. */
import {randomUUID} from 'node:crypto';
import {systemClock} from '../../lib/base/clock';
import {silentLog} from '../../lib/base/log';
import type {Publication} from '../../lib/datacenter/verbs';
import {Ingress} from '../../lib/ingress/ingress';
import {freePort} from '../harness/ports';
import {until} from '../harness/wait';
import {closed, connect, FakePublications, isOpen, publication, say, type Server, serveTcp, text} from './world';

const closing: (() => unknown)[] = [];
afterEach(async () => { for (const close of closing.splice(0).reverse()) await close(); });

let publications: FakePublications;
let servers: Map<string, Server>;
let datacenterId: string;
beforeEach(async () => {
  datacenterId = randomUUID();
  publications = new FakePublications();
  publications.hosts.set('n1', '192.0.2.1').set('n2', '192.0.2.2').set('local', undefined);
  servers = new Map();
  for (const name of ['n1', 'n2']) {
    const server = await serveTcp((socket) => { void text(socket).then((words) => socket.end(`${name} ${words}`), () => undefined); });
    servers.set(name, server);
    closing.push(() => server.close());
  }
  publications.agent = async ({nodeId}) => connect(servers.get(nodeId)!.port);
});

async function start(endpoint = 'e1'): Promise<Ingress> {
  const ingress = new Ingress({publications, log: silentLog(), clock: systemClock, endpoint, datacenterId, limits: {drainMs: 50}, addresses: () => ['127.0.0.1']});
  await ingress.start();
  let stopped: Promise<void> | undefined;
  const {stop} = ingress;
  ingress.stop = () => (stopped ??= stop.call(ingress));
  closing.push(() => ingress.stop());
  return ingress;
}
const local = async (more: Partial<Publication> = {}): Promise<Publication> => publication({hostIp: '127.0.0.1', hostPort: await freePort(), ...more});
/** What it said instead is in the message of whoever gives up. */
async function leads(port: number, words: string): Promise<true> {
  const said = await answers(port);
  if (said !== words) throw new Error(`it says ${JSON.stringify(said)}`);
  return true;
}
const answers = (port: number): Promise<string> => say(port, 'x').catch((err: NodeJS.ErrnoException) => String(err.code));

test('what is published before and after the start is open, and closed when it is gone', async () => {
  const [before, after] = [await local(), await local({nodeId: 'n2'})];
  publications.put(before);
  const ingress = await start();
  await until('the first to be open', () => leads(before.hostPort, 'n1 x'));
  publications.put(after);
  await until('the second to be open', () => leads(after.hostPort, 'n2 x'));
  expect(ingress.state()).toMatchObject({duty: 'serving', refused: []});
  expect(ingress.state().open).toHaveLength(2);
  publications.drop(before);
  await until('the first to be closed', async () => !(await isOpen(before.hostPort)));
  expect(await answers(after.hostPort)).toBe('n2 x');
});

test('a move, as a change of the row or as its end and a new one, never closes the port', async () => {
  const at = await local();
  publications.put(at);
  await start();
  await until('it to be open', () => leads(at.hostPort, 'n1 x'));
  let refused = 0;
  let over = false;
  const asking = (async () => {
    while (!over) if ((await answers(at.hostPort)) === 'ECONNREFUSED') refused += 1;
  })();
  publications.put({...at, nodeId: 'n2'});
  await until('it to lead to the other node', () => leads(at.hostPort, 'n2 x'));
  publications.drop(at);
  publications.put(at);
  await until('it to lead back', () => leads(at.hostPort, 'n1 x'));
  over = true;
  await asking;
  expect(refused).toBe(0);
});

test('a port that another program has is said, hinders no other, and is opened once it is free', async () => {
  const [taken, free] = [await local(), await local()];
  const foreign = await serveTcp((socket) => void socket.end('foreign'), '127.0.0.1', taken.hostPort);
  closing.push(() => foreign.close());
  const ingress = await start();
  publications.put(taken);
  publications.put(free);
  await until('the free one to be open', () => leads(free.hostPort, 'n1 x'));
  await until('the other to be said', () => publications.said.get('e1')?.refused.length === 1);
  expect(publications.said.get('e1')).toMatchObject({duty: 'serving', open: 1, refused: [{protocol: 'tcp', address: '127.0.0.1', port: taken.hostPort, containerId: 'c1', reason: 'another program of this machine has the port'}]});
  await foreign.close();
  await until('it to be open', () => leads(taken.hostPort, 'n1 x'));
  await until('it to be said', () => publications.said.get('e1')?.open === 2);
  expect(ingress.state().refused).toEqual([]);
});

test('who wanted a taken port and goes is forgotten', async () => {
  const taken = await local();
  const foreign = await serveTcp(() => undefined, '127.0.0.1', taken.hostPort);
  closing.push(() => foreign.close());
  const ingress = await start();
  publications.put(taken);
  await until('it to be refused', () => ingress.state().refused.length === 1);
  publications.drop(taken);
  await until('it to be forgotten', () => ingress.state().refused.length === 0);
});

test('nothing is opened for what this machine\'s node has open; what only endpoints have is', async () => {
  const [plain, headed] = [await local({nodeId: 'local'}), await local({nodeId: 'local', atEndpoints: true, proxyProtocol: 'v1'})];
  servers.set('local', servers.get('n1')!);
  const ingress = await start();
  publications.put(plain);
  publications.put(headed);
  await until('one to be open', async () => /^n1 PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 \d+ \d+\r\nx$/.test(await answers(headed.hostPort)));
  expect(ingress.state().open).toEqual([{protocol: 'tcp', address: '127.0.0.1', port: headed.hostPort}]);
});

test('of two endpoints of one machine one serves; the other takes over when it ends', async () => {
  const at = await local();
  publications.put(at);
  const first = await start('e1');
  await until('it to be open', () => leads(at.hostPort, 'n1 x'));
  const second = await start('e2');
  expect([first.state().duty, second.state().duty]).toEqual(['serving', 'standby']);
  await until('both to have said so', () => publications.said.get('e2')?.duty === 'standby' && publications.said.get('e1')?.duty === 'serving');
  await first.stop();
  expect(publications.said.has('e1')).toBe(false);
  await until('the other to serve', async () => second.state().duty === 'serving' && (await answers(at.hostPort)) === 'n1 x');
});

test('the end of the process ends every connection', async () => {
  const at = await local();
  publications.put(at);
  const ingress = await start();
  await until('it to be open', () => isOpen(at.hostPort));
  const client = await connect(at.hostPort);
  await until('it to be under way', () => ingress.state().connections > 0);
  const gone = closed(client);
  await ingress.stop();
  await gone;
  expect(await isOpen(at.hostPort)).toBe(false);
});
