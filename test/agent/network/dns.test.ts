import dgram from 'node:dgram';
import {once} from 'node:events';
import net from 'node:net';
import {decode, encode, RECURSION_DESIRED, type RecordType} from 'dns-packet';
import fc from 'fast-check';
import {answers, answerTo, type NetworkNames, refusal, turnAway} from '../../../lib/agent/network/dns/answer';
import {ask as askOthers} from '../../../lib/agent/network/dns/forward';
import {DnsServers} from '../../../lib/agent/network/dns/servers';
import {silentLog} from '../../../lib/base/log';

const network = (name: string, hosts: Record<string, string[]>): NetworkNames => ({
  network: name, addresses: (wanted) => hosts[wanted] ?? [],
  nameOf: (address) => Object.keys(hosts).find((host) => hosts[host]!.includes(address)),
});
const front = network('front', {web: ['10.0.0.2'], pool: ['10.0.0.2', '10.0.0.3'], many: Array.from({length: 60}, (_, i) => `10.0.1.${i}`)});
const back = network('Back', {web: ['10.9.0.2'], db: ['10.9.0.3']});
const question = (name: string, type: RecordType = 'A', more: object = {}): Buffer => encode({type: 'query', id: 77, flags: RECURSION_DESIRED, questions: [{type, name}], ...more});
const ask = (message: Buffer, udp = true, networks = [front, back]): ReturnType<typeof answerTo> => answerTo(message, networks, udp, () => 0.5);
const told = (message: Buffer, udp = true): {addresses: unknown[]; flag_tc: boolean; flag_aa: boolean; flag_rd: boolean; id?: number; rcode?: string} => {
  const verdict = ask(message, udp);
  if (verdict.kind !== 'answer') throw new Error(verdict.kind);
  const packet = decode(verdict.bytes) as ReturnType<typeof decode> & {rcode: string};
  return {...packet, addresses: packet.answers!.map((a) => ('data' in a ? a.data : undefined))};
};

test('names by themselves, in any case, with their network behind; the first network that knows one answers', () => {
  expect(told(question('web'))).toMatchObject({addresses: ['10.0.0.2'], id: 77, flag_aa: true, flag_rd: true, rcode: 'NOERROR'});
  expect(told(question('WEB')).addresses).toEqual(['10.0.0.2']);
  expect(told(question('web.front')).addresses).toEqual(['10.0.0.2']);
  expect(told(question('web.back')).addresses).toEqual(['10.9.0.2']);
  expect(told(question('db')).addresses).toEqual(['10.9.0.3']);
  expect((told(question('pool')).addresses as string[]).sort()).toEqual(['10.0.0.2', '10.0.0.3']);
  expect(told(question('3.0.9.10.in-addr.arpa', 'PTR')).addresses).toEqual(['db.Back']);
});

test('a name of ours has an empty answer for what it does not have; what is not ours is for others', () => {
  expect(told(question('web', 'AAAA'))).toMatchObject({addresses: [], rcode: 'NOERROR'});
  expect(told(question('web', 'MX')).addresses).toEqual([]);
  for (const foreign of [question('example.org'), question('web.elsewhere'), question('9.9.9.10.in-addr.arpa', 'PTR')]) expect(ask(foreign).kind).toBe('forward');
  expect(ask(question('web'), true, []).kind).toBe('forward');
});

test('too long for a datagram is told so, and comes whole over TCP or where the asker takes more', () => {
  expect(told(question('many'))).toMatchObject({addresses: [], flag_tc: true});
  expect(told(question('many'), false)).toMatchObject({addresses: {length: 60}, flag_tc: false});
  expect(told(question('many', 'A', {additionals: [{type: 'OPT', name: '.', udpPayloadSize: 4096, extendedRcode: 0, ednsVersion: 0, flags: 0, options: []}]})).addresses).toHaveLength(60);
});

test('what is no question gets no answer, or a refusal', () => {
  expect(ask(encode({type: 'response', id: 1, questions: [{type: 'A', name: 'web'}]})).kind).toBe('drop');
  expect(ask(Buffer.from('hello')).kind).toBe('drop');
  expect(told(encode({type: 'query', id: 5, questions: []}))).toMatchObject({id: 5, rcode: 'FORMERR'});
  expect(decode(turnAway(question('web'))!)).toMatchObject({id: 77, rcode: 'REFUSED', answers: []});
  expect(turnAway(Buffer.from('x'))).toBeUndefined();
  fc.assert(fc.property(fc.uint8Array({maxLength: 600}), (bytes) => {
    ask(Buffer.from(bytes));
  }));
});

test('an answer is known by its id and question', () => {
  const query = decode(question('far.example'));
  const answer = (id: number, name: string): Buffer => encode({type: 'response', id, questions: [{type: 'A', name}]});
  expect([answer(77, 'far.example'), answer(77, 'FAR.example'), refusal(query, 'serverFailure')].map((bytes) => answers(bytes, query))).toEqual([true, true, true]);
  expect([answer(78, 'far.example'), answer(77, 'near.example'), question('far.example'), Buffer.alloc(3)].map((bytes) => answers(bytes, query))).toEqual([false, false, false, false]);
});

test.each(['255.255.255.255', 'ff02::1', '::ffff:0.0.0.0%nowhere', 'no.such.host.invalid'])('a server that cannot be reached at all, %s, is one that did not answer, over UDP and TCP', async (server) => {
  const message = question('example.org');
  const uncaught = jest.fn();
  process.on('uncaughtException', uncaught);
  const soon = AbortSignal.timeout(1_000);
  const found = await Promise.all([true, false].map((udp) => askOthers(message, decode(message), [server], udp, soon)));
  process.off('uncaughtException', uncaught);
  expect(found).toEqual([undefined, undefined]);
  expect(uncaught).not.toHaveBeenCalled();
});

describe('one asker whose servers are silent', () => {
  const GREEDY = '127.0.0.2';
  const OTHER = '127.0.0.3';
  /** A slow server has to be asked for it. */
  const SLOW = 'silent';
  let servers: DnsServers;
  let ports: {udp: number; tcp: number};
  beforeEach(async () => {
    const answered = encode({type: 'response', id: 77, questions: [{type: 'A', name: 'far.example'}]});
    servers = new DnsServers(async (_, address) => ({networks: [front], servers: address === GREEDY ? [SLOW] : []}), silentLog(),
      (_message, _query, [server]) => (server === SLOW ? new Promise(() => undefined) : Promise.resolve(answered)));
    ports = await servers.serve('n', '127.0.0.1');
  });
  afterEach(() => servers.close());

  const client = async (address: string): Promise<dgram.Socket> => {
    const socket = dgram.createSocket('udp4');
    await new Promise<void>((done) => socket.bind({address, port: 0}, done));
    await new Promise<void>((done) => socket.connect(ports.udp, '127.0.0.1', done));
    return socket;
  };
  const rcodeOf = async (socket: dgram.Socket): Promise<string> => {
    const [bytes] = (await once(socket, 'message', {signal: AbortSignal.timeout(5000)})) as [Buffer];
    return (decode(bytes) as unknown as {rcode: string}).rcode;
  };

  test('is refused what goes beyond its share, and others are answered', async () => {
    const [greedy, other] = await Promise.all([client(GREEDY), client(OTHER)]);
    const refused = rcodeOf(greedy);
    for (let n = 0; n < 150; n += 1) greedy.send(question('far.example'));
    expect(await refused).toBe('SERVFAIL');
    const far = rcodeOf(other);
    other.send(question('far.example'));
    expect(await far).toBe('NOERROR');
    const near = rcodeOf(greedy);
    greedy.send(question('web'));
    // Whatever is still refused comes before it: the last is the one that is known here.
    for (let next = await near; next !== 'NOERROR'; next = await rcodeOf(greedy)) expect(next).toBe('SERVFAIL');
    greedy.close();
    other.close();
  });

  test('has its share of connections, and others have theirs', async () => {
    const opened = Array.from({length: 40}, () => net.connect({host: '127.0.0.1', port: ports.tcp, localAddress: GREEDY}).on('error', () => undefined).resume());
    let cut = 0;
    await new Promise<void>((enough) => opened.forEach((socket) => socket.on('close', () => { if ((cut += 1) === 20) enough(); })));
    const other = net.connect({host: '127.0.0.1', port: ports.tcp, localAddress: OTHER});
    const message = question('web');
    other.write(Buffer.concat([Buffer.from([0, message.length]), message]));
    const [bytes] = (await once(other, 'data', {signal: AbortSignal.timeout(5000)})) as [Buffer];
    expect(decode(bytes.subarray(2)).answers).toHaveLength(1);
    expect(cut).toBe(20);
    for (const socket of [...opened, other]) socket.destroy();
  });
});
