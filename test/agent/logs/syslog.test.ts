/** Messages as they reach real servers, on every transport that needs no certificate, and what becomes of a server that is slow or gone. */
import dgram from 'node:dgram';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import {systemClock} from '../../../lib/base/clock';
import {LineCutter} from '../../../lib/agent/logs/lines';
import {type Carrier, connectSyslog} from '../../../lib/agent/logs/syslog/connect';
import {type DeliveryOptions, SyslogDelivery} from '../../../lib/agent/logs/syslog/delivery';
import {message, type Sender} from '../../../lib/agent/logs/syslog/format';
import {parseSyslogOptions} from '../../../lib/agent/logs/syslog/options';
import {TEST_CERT, TEST_KEY} from '../../docker/tls-fixture';
import {until} from '../../harness/wait';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const sender: Sender = {facility: 24, format: 'unix', hostname: 'node', tag: 'web', pid: 42, counted: false};
const AT = BigInt(Date.UTC(2026, 0, 2, 3, 4, 5)) * 1_000_000n + 123_456_789n;
const say = (over: Partial<Sender>, stream: 1 | 2 = 1): string => message({...sender, ...over}, stream, Buffer.from('hello'), AT).toString();

async function tcpServer(secure = false): Promise<{port: number; text(): string; sockets: net.Socket[]; close(): void}> {
  let text = '';
  const sockets: net.Socket[] = [];
  const take = (socket: net.Socket): void => {
    sockets.push(socket);
    socket.setEncoding('utf8').on('data', (some: string) => { text += some; }).on('error', () => undefined);
  };
  const server = secure ? tls.createServer({cert: TEST_CERT, key: TEST_KEY}, take) : net.createServer(take);
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const close = (): void => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  closing.push(close);
  return {port: (server.address() as net.AddressInfo).port, text: () => text, sockets, close};
}

function delivery(over: Partial<DeliveryOptions> & Pick<DeliveryOptions, 'connect'>): {made: SyslogDelivery; told: {err?: unknown; lost?: number}[]} {
  const told: {err?: unknown; lost?: number}[] = [];
  const made = new SyslogDelivery({sender, blocking: true, bufferBytes: 900, clock: systemClock, trouble: (what) => told.push(what), ...over});
  closing.push(() => made.close());
  return {made, told};
}
const over = (options: Record<string, string>) => (): Promise<Carrier> => connectSyslog(parseSyslogOptions(options));

describe('messages', () => {
  it('in each format, with the severity of their stream', () => {
    expect(say({})).toMatch(/^<30>Jan {2}2 \d\d:04:05 web\[42\]: hello\n$/);
    expect(say({}, 2)).toMatch(/^<27>/);
    expect(say({format: 'rfc3164'})).toMatch(/^<30>Jan {2}2 \d\d:04:05 node web\[42\]: hello\n$/);
    expect(say({format: 'rfc5424'})).toMatch(/^<30>1 2026-01-02T\d\d:04:05(Z|[+-]\d\d:\d\d) node web 42 web - hello\n$/);
    expect(say({format: 'rfc5424micro', facility: 20 << 3})).toMatch(/^<166>1 2026-01-02T\d\d:04:05\.123456(Z|[+-]\d\d:\d\d) node web 42 web - hello\n$/);
    const counted = say({format: 'rfc5424', counted: true});
    expect(counted).toBe(`${say({format: 'rfc5424'}).length} ${say({format: 'rfc5424'})}`);
  });

  it('are lines, the long ones cut', () => {
    const cutter = new LineCutter();
    expect(cutter.take(Buffer.from('a\n\nb')).map(String)).toEqual(['a', '']);
    expect(cutter.take(Buffer.from('c\n')).map(String)).toEqual(['bc']);
    expect(cutter.take(Buffer.alloc(40_000, 'x')).map((line) => line.length)).toEqual([16_384, 16_384]);
    expect(cutter.end()).toHaveLength(40_000 - 2 * 16_384);
  });
});

describe('options', () => {
  it('addresses, facilities and formats are the Engine\'s', () => {
    expect(parseSyslogOptions({'syslog-address': 'tcp://log.example', 'syslog-facility': 'local3', 'syslog-format': 'rfc5424micro', 'syslog-tls-skip-verify': ''}))
      .toMatchObject({address: {proto: 'tcp', host: 'log.example', port: 514}, facility: 19 << 3, format: 'rfc5424micro', tls: {skipVerify: true}});
    expect(parseSyslogOptions({'syslog-address': 'udp://[::1]:99', 'syslog-facility': '7'})).toMatchObject({address: {proto: 'udp', host: '::1', port: 99}, facility: 56});
    expect(() => parseSyslogOptions({'syslog-address': 'foo://x'})).toThrow('syslog-address should be in form proto://address, got foo://x');
    for (const facility of ['nosuch', '24', '-1']) expect(() => parseSyslogOptions({'syslog-facility': facility})).toThrow('invalid syslog facility');
    expect(() => parseSyslogOptions({'syslog-format': 'x'})).toThrow('Invalid syslog format');
  });
});

describe('delivery', () => {
  it.each(['tcp', 'tcp+tls'])('over %s', async (proto) => {
    const server = await tcpServer(proto === 'tcp+tls');
    const {made} = delivery({connect: over({'syslog-address': `${proto}://127.0.0.1:${server.port}`, 'syslog-tls-skip-verify': 'true'})});
    await made.open();
    expect(made.write(1, Buffer.from('one\ntw'))).toBeUndefined();
    made.write(2, Buffer.from('bad\n'));
    made.write(1, Buffer.from('o\nopen'));
    made.end(1);
    await made.close();
    await until('all lines', () => server.text().split('\n').length === 5);
    expect(server.text().replace(/>[^:]*:\d\d:\d\d web/g, '> web')).toBe('<30> web[42]: one\n<27> web[42]: bad\n<30> web[42]: two\n<30> web[42]: open\n');
  });

  it('over udp and over unix datagrams', async () => {
    const udp = dgram.createSocket('udp4');
    const heard: string[] = [];
    udp.on('message', (bytes) => heard.push(bytes.toString()));
    await new Promise<void>((resolve) => udp.bind(0, '127.0.0.1', resolve));
    closing.push(() => udp.close());
    const {made} = delivery({connect: over({'syslog-address': `udp://127.0.0.1:${udp.address().port}`})});
    await made.open();
    made.write(1, Buffer.from('by udp\n'));
    await until('the datagram', () => heard.length === 1);
    expect(heard[0]).toMatch(/ web\[42\]: by udp\n$/);
    const missing = path.join(os.tmpdir(), 'cetus-no-such-socket');
    await expect(over({'syslog-address': `unixgram://${missing}`})()).rejects.toThrow(`failed to initialize logging driver: dial unixgram ${missing}: connect: no such file or directory`);
  });

  it('over a unix stream', async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-syslog-'));
    closing.push(() => fs.rmSync(dir, {recursive: true}));
    let text = '';
    const server = net.createServer((socket) => void socket.on('data', (some) => { text += some.toString(); }));
    await new Promise<void>((resolve) => void server.listen(path.join(dir, 's'), resolve));
    closing.push(() => server.close());
    const {made} = delivery({connect: over({'syslog-address': `unix://${path.join(dir, 's')}`})});
    await made.open();
    made.write(1, Buffer.from('by stream\n'));
    await until('the line', () => text.endsWith('by stream\n'));
    await made.close();
  });

  it('a server that cannot be reached refuses the start, in the Engine\'s words', async () => {
    const server = await tcpServer();
    server.close();
    const {made} = delivery({connect: over({'syslog-address': `tcp://127.0.0.1:${server.port}`})});
    await expect(made.open()).rejects.toThrow(`failed to initialize logging driver: dial tcp 127.0.0.1:${server.port}: connect: connection refused`);
    await expect(over({'syslog-address': 'tcp+tls://127.0.0.1:1', 'syslog-tls-ca-cert': '/nope'})()).rejects.toThrow('could not read CA certificate "/nope": open /nope: no such file or directory');
  });
});

/** A server that takes nothing until it is told to. */
class Deaf implements Carrier {
  taken: Buffer[] = [];
  waiting = 0;
  onDrain?: () => void;
  onBroken?: (err: Error) => void;
  send(bytes: Buffer): void {
    this.taken.push(bytes);
    this.waiting += bytes.length;
  }
  drain(): void {
    this.waiting = 0;
    this.onDrain?.();
  }
  async close(): Promise<void> { /* nothing is open */ }
}
const line = Buffer.from(`${'x'.repeat(300)}\n`);

describe('a server that takes nothing', () => {
  it('blocking: holds the container back, for a bounded time; then messages are left out, and counted', async () => {
    const deaf = new Deaf();
    let late!: () => void;
    const clock = {...systemClock, now: () => 0, nowNs: () => AT, sleep: (_ms: number, signal?: AbortSignal) => new Promise<void>((resolve, reject) => {
      late = resolve;
      signal?.addEventListener('abort', () => reject(new Error('aborted')));
    })};
    const {made, told} = delivery({connect: async () => deaf, clock});
    await made.open();
    for (let n = 0; n < 2; n += 1) expect(made.write(1, line)).toBeUndefined();
    const held = made.write(1, line);
    expect(held).toBeInstanceOf(Promise);
    expect(made.write(1, line)).toBe(held);
    late();
    await held;
    expect([made.write(1, line), made.write(1, line)]).toEqual([undefined, undefined]);
    expect([deaf.taken.length, told]).toEqual([4, [{}]]);
    deaf.drain();
    expect(told).toEqual([{}, {lost: 2}]);
    for (let n = 0; n < 2; n += 1) made.write(1, line);
    const again = made.write(1, line);
    expect(again).toBeInstanceOf(Promise);
    deaf.drain();
    await again;
  });

  it('non-blocking: messages beyond the buffer are left out at once', async () => {
    const deaf = new Deaf();
    const {made, told} = delivery({connect: async () => deaf, blocking: false});
    await made.open();
    for (let n = 0; n < 10; n += 1) expect(made.write(1, line)).toBeUndefined();
    expect([deaf.taken.length, told]).toEqual([3, [{}]]);
  });

  it('one that goes away is looked for again, and what is written meanwhile waits', async () => {
    const first = new Deaf();
    const second = new Deaf();
    const servers = [first, second];
    const {made, told} = delivery({connect: async () => servers.shift()!});
    await made.open();
    const err = new Error('gone');
    first.onBroken!(err);
    made.write(1, Buffer.from('meanwhile\n'));
    await until('the next server', () => second.taken.length === 1);
    expect(second.taken[0]!.toString()).toMatch(/meanwhile\n$/);
    expect(told).toEqual([{err}]);
  });

  it('ending lets the container go', async () => {
    const {made} = delivery({connect: async () => new Deaf()});
    await made.open();
    for (let n = 0; n < 4; n += 1) made.write(1, line);
    const held = made.write(1, line);
    await made.close();
    await held;
  });
});
