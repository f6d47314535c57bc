/** From an endpoint to a container: to its node's published port, or through the node's agent. */
import dgram from 'node:dgram';
import net from 'node:net';
import type {Duplex} from 'node:stream';
import {MAX_QUEUED_BYTES, readDatagrams, writeDatagram} from '../base/datagrams';
import {CetusError} from '../base/errors';
import type {PublicationVerbs} from '../datacenter/verbs';
import type {Target} from './desired';
import type {Session, Ways} from './listener';

const KEEP_ALIVE_MS = 60_000;
/** Datagrams that wait for the way to open. */
const MAX_WAITING = 16;

export function waysBy(publications: Pick<PublicationVerbs, 'dial'>, connectMs: number): Ways {
  return {
    tcp: ({publication, way}) => (way.kind === 'agent' ? publications.dial(publication) : connected(way.host, publication.hostPort, connectMs)),
    udp: (target, answered, closed) => (target.way.kind === 'agent' ? byAgent(publications, target, answered, closed) : byNode(target.way.host, target.publication.hostPort, answered, closed)),
  };
}

function connected(host: string, port: number, timeout: number): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({host, port, allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS, timeout});
    const fail = (cause?: Error): void => {
      socket.destroy();
      reject(new CetusError('unavailable', `nobody answers at ${host}:${port}`, {cause}));
    };
    socket.once('timeout', () => fail()).once('error', fail).once('connect', () => {
      socket.removeAllListeners('timeout').removeAllListeners('error').setTimeout(0);
      resolve(socket);
    });
  });
}

function byNode(host: string, port: number, answered: (datagram: Buffer) => void, closed: () => void): Session {
  const socket = dgram.createSocket('udp4');
  return session((datagram) => {
    if (socket.getSendQueueSize() <= MAX_QUEUED_BYTES) socket.send(datagram, () => undefined);
  }, () => socket.close(), (opened) => {
    // ICMP says that nobody listens: the container may not have begun yet.
    socket.on('error', closed);
    socket.on('message', answered);
    socket.connect(port, host, opened);
  });
}

function byAgent(publications: Pick<PublicationVerbs, 'dial'>, {publication}: Target, answered: (datagram: Buffer) => void, closed: () => void): Session {
  let stream: Duplex | undefined;
  let over = false;
  return session((datagram) => void (stream && writeDatagram(stream, datagram)), () => {
    over = true;
    stream?.destroy();
  }, (opened) => {
    publications.dial(publication).then((dialled) => {
      stream = dialled;
      if (over) return void dialled.destroy();
      dialled.on('error', () => undefined).once('close', closed);
      dialled.once('end', () => dialled.destroy());
      readDatagrams(dialled, answered);
      opened();
    }, closed);
  });
}

function session(send: (datagram: Buffer) => void, close: () => void, open: (opened: () => void) => void): Session {
  let waiting: Buffer[] | undefined = [];
  let over = false;
  open(() => {
    const late = waiting ?? [];
    waiting = undefined;
    if (!over) late.forEach(send);
  });
  return {
    send: (datagram) => {
      if (over) return;
      if (!waiting) send(datagram);
      else if (waiting.length < MAX_WAITING) waiting.push(datagram);
    },
    close: () => {
      if (over) return;
      over = true;
      close();
    },
  };
}
