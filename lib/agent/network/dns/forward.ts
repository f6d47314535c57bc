/** A question passed on to the servers that the container, or else the node, is to use: one after the other, each for a bounded time. */
import dgram from 'node:dgram';
import net from 'node:net';
import type {DecodedPacket} from 'dns-packet';
import {answers} from './answer';

const SERVER_MS = 3_000;
const MAX_SERVERS = 3;
const MAX_MESSAGE = 65_535;

/** The first server's answer; undefined where none gave one. */
export async function ask(message: Buffer, query: DecodedPacket, servers: string[], udp: boolean, signal: AbortSignal): Promise<Buffer | undefined> {
  for (const server of servers.slice(0, MAX_SERVERS)) {
    if (signal.aborted) return undefined;
    const answer = await (udp ? askUdp : askTcp)(message, query, server, AbortSignal.any([signal, AbortSignal.timeout(SERVER_MS)]));
    if (answer) return answer;
  }
  return undefined;
}

function askUdp(message: Buffer, query: DecodedPacket, server: string, signal: AbortSignal): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = dgram.createSocket(net.isIPv6(server) ? 'udp6' : 'udp4');
    const end = (answer?: Buffer): void => {
      signal.removeEventListener('abort', onAbort);
      try { socket.close(); } catch { /* closed already */ }
      resolve(answer);
    };
    const onAbort = (): void => end();
    signal.addEventListener('abort', onAbort, {once: true});
    // Refused by an ICMP answer, among others.
    socket.on('error', () => end());
    socket.on('message', (answer) => { if (answers(answer, query)) end(answer); });
    // Connected: the kernel drops what comes from anybody else.
    // An event, not connect's callback: that is called where there is no way to the server, too, and nothing can be sent then.
    socket.once('connect', () => socket.send(message));
    socket.connect(53, server);
  });
}

function askTcp(message: Buffer, query: DecodedPacket, server: string, signal: AbortSignal): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect({host: server, port: 53});
    const chunks: Buffer[] = [];
    const end = (answer?: Buffer): void => {
      signal.removeEventListener('abort', onAbort);
      socket.destroy();
      resolve(answer);
    };
    const onAbort = (): void => end();
    signal.addEventListener('abort', onAbort, {once: true});
    socket.on('error', () => end()).on('close', () => end());
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      const all = Buffer.concat(chunks);
      const length = all.length >= 2 ? all.readUInt16BE(0) : MAX_MESSAGE;
      if (all.length < 2 + length) return;
      const answer = all.subarray(2, 2 + length);
      end(answers(answer, query) ? answer : undefined);
    });
    socket.write(framed(message));
  });
}

/** As messages travel over TCP: two bytes of length in front. */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}
