/** The ways in which calls answer: JSON, lines of JSON, and waiting for a reader that is slow. */
import type http from 'node:http';
import type {Duplex} from 'node:stream';
import {asCetusError} from '../../base/errors';

export function json(res: http.ServerResponse, value: unknown, status = 200): void {
  const text = JSON.stringify(value);
  res.writeHead(status, {'content-type': 'application/json', 'content-length': Buffer.byteLength(text)}).end(text);
}

/** Nothing has been sent before the first line: an error until then is an answer of its own; later it is the last line. */
export async function ndjson(res: http.ServerResponse, lines: AsyncIterable<unknown>): Promise<void> {
  try {
    for await (const line of lines) {
      if (!res.headersSent) res.writeHead(200, {'content-type': 'application/x-ndjson'});
      if (res.destroyed) return;
      if (!res.write(`${JSON.stringify(line)}\n`)) await drained(res);
    }
  } catch (err) {
    if (!res.headersSent) throw err;
    res.write(`${JSON.stringify({failure: asCetusError(err).toWire()})}\n`);
  }
  res.end();
}

const DRAIN_DEADLINE_MS = 120_000;

/** Resolves when there is room again or the client is gone; one that takes nothing for two minutes is cut off. */
export function drained(stream: Duplex | NodeJS.WritableStream): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      stream.removeListener('drain', done);
      stream.removeListener('close', done);
      resolve();
    };
    const timer = setTimeout(() => {
      (stream as Duplex).destroy();
      done();
    }, DRAIN_DEADLINE_MS);
    stream.once('drain', done);
    stream.once('close', done);
  });
}
