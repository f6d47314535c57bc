/** The protocol over a real unix socket, with fleet's own client at the other end. */
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {type Duplex, Readable} from 'node:stream';
import {request} from 'node:http';
import {CetusError} from '../../lib/base/errors';
import {HttpAgentClient} from '../../lib/fleet/agent-client';
import type {AttachQuery, LogsQuery} from '../../lib/schema/agent';
import {makeSpec, task, TestNode, until} from './node';

const ATTACH: AttachQuery = {stdin: true, stdout: true, stderr: true, logs: false, stream: true, detachKeys: ''};
const LOGS: LogsQuery = {stdout: true, stderr: true, follow: false, timestamps: false, details: false, sinceNs: '', untilNs: '', tail: -1};

let node: TestNode;
let client: HttpAgentClient;
beforeEach(async () => {
  node = await new TestNode().boot();
  client = new HttpAgentClient('node-1', await node.listen());
});
afterEach(async () => {
  await client.close();
  await node.end();
});

async function frames(stream: AsyncIterable<Buffer>): Promise<Record<1 | 2, string>> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  const all = Buffer.concat(chunks);
  const out = {1: '', 2: ''};
  for (let at = 0; at < all.length;) {
    const length = all.readUInt32BE(at + 4);
    out[all[at] as 1 | 2] += all.toString('utf8', at + 8, at + 8 + length);
    at += 8 + length;
  }
  return out;
}

async function firstBytes(stream: Duplex, length: number): Promise<string> {
  let text = '';
  return await new Promise((resolve) => {
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.length >= length) resolve(text);
    });
  });
}

test('what meets a process that has just ended is told so as by the Engine, not in the runtime\'s words', async () => {
  await node.create('c1', ['sleep', '1000'], {config: {Tty: true}});
  await node.start('c1');
  const unit = node.agent.supervisor.unit('c1');
  const heard = unit.exited.bind(unit);
  // The process is gone, and word of it is still on its way to the agent.
  const late = new Promise<Parameters<typeof heard>[0]>((resolve) => { unit.exited = async (exit) => resolve(exit); });
  await client.putExec('e1', 'c1', {Cmd: ['true']});
  await node.runtime.kill('c1', '', 9);
  const exit = await late;
  const told = {kind: 'conflict', message: 'container c1 is not running'};
  await expect(client.top('c1', '')).rejects.toMatchObject(told);
  node.runtime.failNext('resize', new CetusError('notFound', 'process does not exist : not found'));
  await expect(client.resize('c1', 10, 10)).rejects.toMatchObject(told);
  await expect(client.startExec('e1', {detachKeys: '', consoleSize: null, detach: true})).rejects.toMatchObject(told);
  await expect(node.task({kind: 'container.pause', containerId: 'c1'})).rejects.toMatchObject(told);
  // What changes only the next start is no failure.
  await node.task({kind: 'container.update', containerId: 'c1', resources: {Memory: 64 << 20}, restartPolicy: null});
  await heard(exit);
  expect(node.status('c1')).toBe('exited');
});

describe('attach', () => {
  it('before the start gets everything from the first byte to the last', async () => {
    await node.create('c1', ['sh', '-c', 'echo out; echo err >&2; echo more']);
    const stream = await client.attach('c1', {...ATTACH, stdin: false});
    const reading = frames(stream);
    await node.start('c1');
    expect(await reading).toEqual({1: 'out\nmore\n', 2: 'err\n'});
  });

  it('half-closes stdin, and output goes on', async () => {
    await node.create('c1', ['cat'], {config: {OpenStdin: true, StdinOnce: true}});
    const stream = await client.attach('c1', ATTACH);
    const reading = frames(stream);
    await node.start('c1');
    const bytes = 'x'.repeat(3_000_000);
    stream.end(bytes);
    expect((await reading)[1]).toBe(bytes);
    await until('ended', () => node.status('c1') === 'exited');
  });

  it('replays the log and goes on without gap or overlap', async () => {
    await node.create('c1', ['cat'], {config: {OpenStdin: true, StdinOnce: true}});
    await node.start('c1');
    const first = await client.attach('c1', {...ATTACH, logs: false});
    const seen = firstBytes(first, 8 + 15);
    first.write('one\ntwo\nhalf a ');
    await seen;
    const second = await client.attach('c1', {...ATTACH, stdin: false, logs: true});
    const reading = frames(second);
    first.write('line\n');
    first.end();
    first.resume();
    expect((await reading)[1]).toBe('one\ntwo\nhalf a line\n');
  });

  it('lets go of a terminal at the detach keys, and the process runs on', async () => {
    await node.create('c1', ['cat'], {config: {OpenStdin: true, Tty: true}});
    await node.start('c1');
    const stream = await client.attach('c1', ATTACH);
    const echoed = firstBytes(stream, 2);
    stream.write('hi');
    expect(await echoed).toBe('hi');
    const over = new Promise((resolve) => stream.once('end', resolve));
    stream.write(Buffer.from([16]));
    stream.write(Buffer.from([17]));
    await over;
    expect(node.status('c1')).toBe('running');
    stream.destroy();
  });

  it('holds the output back for a client that does not read, and loses nothing', async () => {
    await node.create('c1', ['yes']);
    const stream = await client.attach('c1', {...ATTACH, stdin: false});
    stream.pause();
    await node.start('c1');
    const written = (): number => node.agent.supervisor.unit('c1').logSource().writer!.bytes;
    let last = -1;
    await until('held back', async () => {
      const before = last;
      last = written();
      await new Promise((resolve) => setTimeout(resolve, 50));
      return before === last && last > 0;
    });
    stream.resume();
    await until('goes on', () => written() > last * 2);
    stream.destroy();
    await node.task({kind: 'container.remove', containerId: 'c1', force: true});
  });
});

describe('logs', () => {
  it('are read and followed to the end', async () => {
    await node.create('c1', ['sh', '-c', 'echo one; sleep 0.1; echo two; echo three >&2']);
    await node.start('c1');
    expect(await frames(await client.logs('c1', {...LOGS, follow: true}))).toEqual({1: 'one\ntwo\n', 2: 'three\n'});
    await until('ended', () => node.status('c1') === 'exited');
    expect(await frames(await client.logs('c1', {...LOGS, tail: 1, stdout: false}))).toEqual({1: '', 2: 'three\n'});
    await expect(client.logs('c1', {...LOGS, sinceNs: 'x'})).rejects.toThrow('invalid time "x"');
    await expect(client.logs('nobody', LOGS)).rejects.toThrow('No such container: nobody');
  });

  it('of a container without a log are refused', async () => {
    await node.create('c1', ['true'], {spec: {logConfig: {Type: 'none'}}});
    await node.start('c1');
    await expect(client.logs('c1', LOGS)).rejects.toThrow('configured logging driver does not support reading');
  });
});

describe('exec', () => {
  const config = {AttachStdin: true, AttachStdout: true, AttachStderr: true};
  const query = {detachKeys: '', consoleSize: null, detach: false};
  beforeEach(async () => {
    await node.create('c1', ['sleep', '1000']);
    await node.start('c1');
  });

  it('streams both ways and tells how it ended', async () => {
    await client.putExec('e1', 'c1', {...config, Cmd: ['sh', '-c', 'cat; exit 5']});
    await client.putExec('e1', 'c1', {...config, Cmd: ['sh', '-c', 'cat; exit 5']});
    const stream = (await client.startExec('e1', query))!;
    const reading = frames(stream);
    stream.end('hello');
    expect((await reading)[1]).toBe('hello');
    await until('ended', async () => !(await client.observeExec('e1')).running);
    expect(await client.observeExec('e1')).toMatchObject({exitCode: 5, containerId: 'c1', canRemove: true});
    await expect(client.startExec('e1', query)).rejects.toThrow('already running');
    await node.agent.settled();
    expect(node.sink.reports_.at(-1)).toMatchObject({kind: 'exec', execId: 'e1', exitCode: 5});
  });

  it('that cannot be started says why in its stream, with 127', async () => {
    await client.putExec('e1', 'c1', {...config, Cmd: ['nonsense']});
    const stream = (await client.startExec('e1', query))!;
    expect((await frames(stream))[1]).toContain('exec: "nonsense": executable file not found in $PATH: unknown\r\n');
    expect((await client.observeExec('e1')).exitCode).toBe(127);
    stream.destroy();
  });

  it('ends with its container, outlives the agent, and is refused where nothing runs', async () => {
    await client.putExec('e1', 'c1', {Cmd: ['sleep', '1000']});
    expect(await client.startExec('e1', {...query, detach: true})).toBeNull();
    await client.close();
    await node.agent.close();
    await node.boot();
    client = new HttpAgentClient('node-1', await node.listen());
    expect(await client.observeExec('e1')).toMatchObject({running: true});
    await node.task({kind: 'container.kill', containerId: 'c1', signal: 'KILL'});
    await until('ended', async () => (await client.observeExec('e1')).exitCode === 137);
    await expect(client.putExec('e2', 'c1', {Cmd: ['true']})).rejects.toThrow('container c1 is not running');
  });
});

describe('the server', () => {
  it('answers tasks once per job and step, and checks them', async () => {
    const create = task({kind: 'container.create', spec: makeSpec('c1', ['true']), volumes: []});
    const [one, two] = await Promise.all([client.task(create), client.task(create)]);
    expect(one).toEqual(two);
    expect(one.observation).toMatchObject({containerId: 'c1', status: 'created', generation: 1});
    await expect(client.task(task({kind: 'container.remove', containerId: '../x', force: true}, {step: 't'}))).rejects.toThrow('must match pattern');
    await expect(client.task(task({kind: 'nonsense'} as never, {step: 'u'}))).rejects.toThrow('/body');
    await expect(client.task({...create, epoch: 0})).rejects.toMatchObject({kind: 'stale'});
  });

  it('keeps an inventory', async () => {
    await node.create('c1', ['true']);
    expect(await client.inventory()).toMatchObject({containers: [{id: 'c1'}], execs: [], volumes: []});
    expect((await client.info()).nodeId).toBe('n1');
  });

  it('answers for the files of no container but its own, and takes an archive that nobody reads', async () => {
    const target = {path: '/', noOverwriteDirNonDir: false, copyUIDGID: false};
    const endless = new Readable({read() { this.push(Buffer.alloc(65_536)); }});
    for (const call of [client.changes('no'), client.export('no'), client.statPath('no', '/'), client.getArchive('no', '/'), client.putArchive('no', target, endless)])
      await expect(call).rejects.toMatchObject({kind: 'notFound', message: 'No such container: no'});
    endless.destroy();
    // A plain tar goes by a raw stream, and is refused there, too.
    const header = Buffer.alloc(512).fill('ustar', 257, 262);
    await expect(client.putArchive('no', target, Readable.from([header]))).rejects.toMatchObject({kind: 'notFound', message: 'No such container: no'});
  });

  it('knows the sizes of layers and volumes', async () => {
    await node.create('c1', ['true']);
    expect(await client.usage('c1')).toEqual({sizeRw: expect.any(Number)});
    const {mountpoint} = await client.task(task({kind: 'volume.ensure', volumeId: 'v1', name: 'data', account: 'a', options: {}}));
    writeFileSync(join(mountpoint!, 'file'), 'seven b');
    expect(await client.volumeUsage('v1')).toEqual({size: 7});
    await expect(client.volumeUsage('v2')).rejects.toMatchObject({kind: 'notFound'});
  });

  it('refuses endless bodies and strange paths', async () => {
    const status = await new Promise<number>((resolve, reject) => {
      const req = request({socketPath: node.socketPath, method: 'POST', path: '/v1/tasks'}, (res) => resolve(res.statusCode!));
      req.on('error', reject);
      const pour = (): void => {
        while (!req.destroyed && req.write(Buffer.alloc(1024 * 1024)));
        req.once('drain', pour);
      };
      pour();
    }).catch((err: NodeJS.ErrnoException) => (err.code === 'EPIPE' || err.code === 'ECONNRESET' ? 400 : Promise.reject(err)));
    expect(status).toBe(400);
    await expect(client.observe('a/b')).rejects.toMatchObject({kind: 'invalid'});
  });
});

describe('an upload that is refused at its first bytes', () => {
  it('says why, however much is still on its way, and the connection is of no more use', async () => {
    for (let round = 0; round < 20; round += 1) {
      const endless = Readable.from((function* () { for (;;) yield Buffer.alloc(1 << 16, 0x55); })());
      const loading = (async () => { for await (const _line of client.load(endless)) throw new Error('no line was expected'); })();
      await expect(loading).rejects.toMatchObject({kind: 'invalid', message: 'invalid archive: not a tar'});
      expect(endless.destroyed).toBe(true);
    }
    expect((await client.info()).nodeId).toBe('n1');
  });
});
