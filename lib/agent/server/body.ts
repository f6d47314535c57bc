/** Bodies and queries of the agent's protocol, bounded and checked. */
import type {IncomingMessage} from 'node:http';
import type {Socket} from 'node:net';
import {Readable} from 'node:stream';
import Ajv from 'ajv';
import {readJson} from '../../base/body';
import {CetusError} from '../../base/errors';
import {type Check, lateCheck} from '../../base/late-check';
import {BUILD_PREPARE_SCHEMA, BUILT_SCHEMA, ENSURE_REQUEST_SCHEMA, IMPORT_REQUEST_SCHEMA, PULL_REQUEST_SCHEMA, PUSH_REQUEST_SCHEMA, PUT_EXEC_SCHEMA, REGISTRY_QUESTION_SCHEMA, SAVE_REQUEST_SCHEMA, TAKE_SCHEMA, TASK_SCHEMA} from '../../schema/agent.schema';

const MAX_HEAD_LINE = 4 * 1024 * 1024;

const ajv = new Ajv({discriminator: true, allErrors: false, strict: false});
const late = (schema: object): Check => lateCheck(ajv, schema);
export const checks = {
  task: late(TASK_SCHEMA), putExec: late(PUT_EXEC_SCHEMA), pull: late(PULL_REQUEST_SCHEMA), ensure: late(ENSURE_REQUEST_SCHEMA), import: late(IMPORT_REQUEST_SCHEMA), push: late(PUSH_REQUEST_SCHEMA), registry: late(REGISTRY_QUESTION_SCHEMA), save: late(SAVE_REQUEST_SCHEMA),
  buildPrepare: late(BUILD_PREPARE_SCHEMA), built: late(BUILT_SCHEMA), take: late(TAKE_SCHEMA),
};

export async function readJsonBody<T>(req: IncomingMessage, check: Check): Promise<T> {
  return checked<T>(await readJson(req), check);
}

function checked<T>(message: unknown, check: Check): T {
  if (!check(message)) {
    const [first] = check.errors ?? [];
    throw new CetusError('invalid', `${first?.instancePath || 'the body'} ${first?.message ?? 'is not as the protocol says'}`);
  }
  return message as T;
}

/** One line of JSON, and the stream behind it. */
export async function readHeadLine<T>(source: Readable, check: Check): Promise<{head: T; rest: Readable}> {
  const chunks = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let read = Buffer.alloc(0);
  let end = -1;
  while ((end = read.indexOf(0x0a)) < 0) {
    const next = read.length > MAX_HEAD_LINE ? undefined : await chunks.next();
    if (!next || next.done) throw new CetusError('invalid', 'the body does not begin with a line of JSON');
    read = Buffer.concat([read, next.value]);
  }
  const head = parseChecked<T>(read.subarray(0, end), check);
  const rest = Readable.from((async function* all() {
    try {
      if (end + 1 < read.length) yield read.subarray(end + 1);
      for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value;
    } finally {
      source.destroy();
    }
  })(), {objectMode: false, highWaterMark: 1024 * 1024});
  return {head, rest};
}

function parseChecked<T>(bytes: Buffer, check: Check): T {
  let message: unknown;
  try {
    message = JSON.parse(bytes.toString('utf8'));
  } catch {
    // No cause: it may quote what must not be told.
    throw new CetusError('invalid', 'the body does not begin with a line of JSON');
  }
  return checked<T>(message, check);
}

/** How long the rest of a refused body is read and dropped: closing at once would reset the connection, and the reset overtakes the answer. */
const LINGER_MS = 5_000;

/** To be called before the answer to a request whose body nobody wants to its end. */
export function dropRest(req: IncomingMessage): void {
  const socket = req.socket as Socket | null;
  if (!socket) return; // the reader gave up by ending the connection
  socket.destroySoon = () => {
    socket.end(() => {
      const timer = setTimeout(() => socket.destroy(), LINGER_MS);
      timer.unref();
      socket.once('close', () => clearTimeout(timer));
    });
  };
  req.resume();
}

/** A query as lib/schema/agent.ts writes it. */
export class Query {
  constructor(private readonly params: URLSearchParams) {}

  text(name: string): string {
    return this.params.get(name) ?? '';
  }

  flag(name: string): boolean {
    const value = this.text(name);
    if (value === '' || value === '0') return false;
    if (value === '1') return true;
    throw new CetusError('invalid', `${name} is 1 or 0, not "${value}"`);
  }

  number(name: string, fallback: number): number {
    const value = this.text(name);
    if (value === '') return fallback;
    const number = Number(value);
    if (!Number.isSafeInteger(number)) throw new CetusError('invalid', `${name} is a number, not "${value}"`);
    return number;
  }

  /** "HEIGHT,WIDTH" */
  size(name: string): [number, number] | null {
    const value = this.text(name);
    if (value === '') return null;
    const match = /^(\d{1,5}),(\d{1,5})$/.exec(value);
    if (!match) throw new CetusError('invalid', `${name} is HEIGHT,WIDTH, not "${value}"`);
    return [Number(match[1]), Number(match[2])];
  }
}
