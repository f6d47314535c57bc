/** Bodies and queries of the agent's protocol, bounded and checked. */
import type {IncomingMessage} from 'node:http';
import type {Socket} from 'node:net';
import Ajv, {type ValidateFunction} from 'ajv';
import {readJson} from '../../base/body';
import {CetusError} from '../../base/errors';
import {BUILD_PREPARE_SCHEMA, BUILT_SCHEMA, PULL_REQUEST_SCHEMA, PUSH_REQUEST_SCHEMA, PUT_EXEC_SCHEMA, REGISTRY_QUESTION_SCHEMA, SAVE_REQUEST_SCHEMA, TAKE_SCHEMA, TASK_SCHEMA} from '../../schema/agent.schema';

const ajv = new Ajv({discriminator: true, allErrors: false, strict: false});
export const checks = {
  task: ajv.compile(TASK_SCHEMA), putExec: ajv.compile(PUT_EXEC_SCHEMA), pull: ajv.compile(PULL_REQUEST_SCHEMA), push: ajv.compile(PUSH_REQUEST_SCHEMA), registry: ajv.compile(REGISTRY_QUESTION_SCHEMA), save: ajv.compile(SAVE_REQUEST_SCHEMA),
  buildPrepare: ajv.compile(BUILD_PREPARE_SCHEMA), built: ajv.compile(BUILT_SCHEMA), take: ajv.compile(TAKE_SCHEMA),
};

export async function readJsonBody<T>(req: IncomingMessage, check: ValidateFunction): Promise<T> {
  const message = await readJson(req);
  if (!check(message)) {
    const [first] = check.errors ?? [];
    throw new CetusError('invalid', `${first?.instancePath || 'the body'} ${first?.message ?? 'is not as the protocol says'}`);
  }
  return message as T;
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
