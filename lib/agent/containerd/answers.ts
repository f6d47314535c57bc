/**
 * Whether a containerd serves: one call of its version service, spoken by hand over HTTP/2. `cetus up` asks nothing else of it, and the gRPC
 * library would be an eighth of that process.
 */
import http2 from 'node:http2';
import net from 'node:net';
import {CetusError} from '../../base/errors';

const PATH = '/containerd.services.version.v1.Version/Version';
/** gRPC's frame of a message without content: not compressed, four bytes of length. */
const EMPTY_MESSAGE = Buffer.alloc(5);

/** Resolves when it has answered; `unavailable` where it does not within that time. */
export async function answers(socket: string, withinMs: number): Promise<void> {
  const session = http2.connect('http://localhost', {createConnection: () => net.connect(socket)});
  try {
    await new Promise<void>((resolve, reject) => {
      const refuse = (cause?: unknown): void => reject(new CetusError('unavailable', 'containerd does not answer', {cause}));
      session.once('error', refuse).once('close', refuse);
      session.setTimeout(withinMs, refuse);
      const call = session.request({':method': 'POST', ':path': PATH, 'content-type': 'application/grpc', te: 'trailers'});
      // Of an error alone, gRPC tells the status in the headers.
      const judge = (headers: http2.IncomingHttpHeaders): void => {
        const status = headers['grpc-status'];
        if (status === '0') resolve();
        else if (status !== undefined) refuse();
      };
      call.once('error', refuse).once('response', judge).once('trailers', judge).once('close', refuse).resume();
      call.end(EMPTY_MESSAGE);
    });
  } finally {
    session.destroy();
  }
}
