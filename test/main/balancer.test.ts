import {once} from 'node:events';
import net from 'node:net';
import {Balancer} from '../../lib/main/fleet/balancer';
import {until} from '../harness/wait';

const held: net.Socket[] = [];
const target = net.createServer({allowHalfOpen: true}, (socket) => {
  held.push(socket.on('error', () => undefined));
  socket.once('data', (word: Buffer) => socket.write(`heard ${word.toString()}`)).resume();
});
let balancer: Balancer;
let port: number;

beforeEach(async () => {
  await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
  balancer = new Balancer([{host: '127.0.0.1', port: 1}, {host: '127.0.0.1', port: (target.address() as net.AddressInfo).port}]);
  ({port} = (await balancer.listen('127.0.0.1', 0)) as {port: number});
});
afterEach(async () => {
  await balancer.part.stop();
  for (const socket of held.splice(0)) socket.destroy();
  await new Promise((resolve) => target.close(resolve));
});

async function client(): Promise<net.Socket> {
  const socket = net.connect({host: '127.0.0.1', port, allowHalfOpen: true}).on('error', () => undefined);
  socket.write('word');
  const [answer] = (await once(socket, 'data')) as [Buffer];
  expect(answer.toString()).toBe('heard word');
  return socket;
}

test('the end of one direction is handed on and leaves the other as it is', async () => {
  const socket = await client();
  socket.end();
  await until('the end to arrive', () => held[0]!.readableEnded);
  held[0]!.end(' and more');
  expect(String((await once(socket, 'data'))[0])).toBe(' and more');
  await once(socket, 'close');
});

test('a client that ended its side and is gone then takes its connection along', async () => {
  const socket = await client();
  socket.end();
  await until('the end to arrive', () => held[0]!.readableEnded);
  socket.resetAndDestroy();
  // The target writes nothing, so that nothing comes back: the balancer has to look by itself.
  const {clients} = balancer as unknown as {clients: Set<net.Socket>};
  await until('the balancer to have let go of it', () => clients.size === 0);
});
