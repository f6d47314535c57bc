/** What tests of ZooKeeper stand on: servers that can be killed and stopped, and connections that can be cut and held. */
import net from 'node:net';
import {once} from 'node:events';
import {Cut} from '../harness/cut';
import {until} from '../harness/wait';
import {ZooKeeper} from '../harness/zookeeper';

test('three servers elect another leader when theirs is killed, and take it back', async () => {
  const zookeeper = await ZooKeeper.start({servers: 3});
  try {
    const first = await zookeeper.leader();
    await first.kill();
    const second = await zookeeper.leader();
    expect(second.id).not.toBe(first.id);
    second.pause();
    await until('nobody to lead', async () => (await Promise.all(zookeeper.servers.map((server) => server.role()))).every((role) => role === undefined));
    await zookeeper.heal();
    expect((await Promise.all(zookeeper.servers.map((server) => server.role()))).sort()).toEqual(['follower', 'follower', 'leader']);
  } finally {
    await zookeeper.stop();
  }
  await expect(once(net.connect(zookeeper.servers[0]!.port, '127.0.0.1'), 'connect')).rejects.toThrow('ECONNREFUSED');
});

test('a connection is held in one direction, flows on, and is cut', async () => {
  const echo = net.createServer((socket) => { socket.on('error', () => undefined).on('data', (bytes) => { heard += bytes.toString(); socket.write(bytes); }); });
  let heard = '';
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  const cut = await Cut.open({host: '127.0.0.1', port: (echo.address() as net.AddressInfo).port});
  const client = net.connect(cut.port, cut.host).setEncoding('utf8').on('error', () => undefined);
  let answered = '';
  client.on('data', (text) => { answered += String(text); });
  try {
    client.write('one ');
    await until('an answer', () => answered === 'one ');
    cut.hold('answers');
    client.write('two ');
    await until('the question to arrive and its answer to wait', () => heard === 'one two ' && cut.heldBytes('answers') === 4);
    expect(answered).toBe('one ');
    cut.restore();
    await until('the held answer', () => answered === 'one two ');
    cut.hold('questions');
    client.write('three');
    await until('the question to wait', () => cut.heldBytes('questions') === 5);
    cut.cut();
    await until('the connection to break', () => client.destroyed);
    expect(heard).toBe('one two ');
    const refused = net.connect(cut.port, cut.host).on('error', () => undefined);
    await until('the next one to be refused', () => refused.destroyed);
    cut.restore();
    const again = net.connect(cut.port, cut.host).on('error', () => undefined);
    again.write('x');
    expect(String((await once(again, 'data'))[0])).toBe('x');
    again.destroy();
    await until('nothing to be left', () => cut.open === 0);
    cut.hold('questions', 'answers');
    const gone = net.connect(cut.port, cut.host).on('error', () => undefined);
    gone.write('last');
    await until('the question to wait', () => cut.heldBytes('questions') === 4);
    gone.destroy();
    await until('the client to be gone', () => gone.destroyed);
    cut.restore();
    await until('it to arrive all the same, and its end behind it', () => heard.endsWith('last') && cut.open === 0);
  } finally {
    client.destroy();
    await cut.close();
    echo.close();
  }
});
