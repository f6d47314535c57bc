/**
 * A plain tar on its way into a container, over a raw stream: the end of our bytes is the end of the archive, and one line of JSON answers it, `{}` or
 * an error. Nothing frames the bytes, so the agent need not look at them: its worker reads the connection itself. That a sender who breaks off looks
 * like one who is through does no harm: the answer of the cut archive, good or bad, is read by nobody.
 *
 * On one machine the bytes need not even come through here: where the body can be lent, the worker is offered the client's own connection. It says in a
 * line before its answer whether it has it; only then is it sure that the connection is still the client's (a number is another one's once its own is
 * closed), so it begins when we say so.
 */
import type {Duplex, Readable} from 'node:stream';
import {CetusError, fromWire} from '../base/errors';
import {type LendableBody, type Loan, isLendable} from '../base/upload';
import {type LoanOffer, LOAN_GOOD} from '../schema/agent';

const MAX_ANSWER_BYTES = 64 * 1024;
const MAGIC_AT = 257;
const MAGIC = Buffer.from('ustar');

/** Waits for the beginning of `body`, which stays in it. Not so for a compressed one, nor for a tar of the seventies: those the agent looks at. */
export async function isPlainTar(body: Readable): Promise<boolean> {
  if (!body.readableLength && !body.readableEnded && !body.destroyed)
    await new Promise<void>((resolve) => {
      const seen = (): void => {
        body.off('readable', seen).off('end', seen).off('close', seen);
        resolve();
      };
      body.on('readable', seen).on('end', seen).on('close', seen);
    });
  if (body.errored) throw body.errored;
  if (!body.readableLength) return false;
  const head = body.read() as Buffer;
  body.unshift(head);
  return head.subarray(MAGIC_AT, MAGIC_AT + MAGIC.length).equals(MAGIC);
}

export interface Lent { body: LendableBody; loan: Loan; offer: LoanOffer }

/** To be destroyed by whoever asked for it. */
export function lend(body: Readable): Lent | undefined {
  const loan = isLendable(body) ? body.lend() : undefined;
  if (!loan) return undefined;
  const {descriptor, read, framing, silenceMs} = loan;
  return {body: body as LendableBody, loan, offer: {descriptor, before: read.length, framing, silenceMs}};
}

/** Resolves when all of it is in its place. `broken` says what a connection means that ends without an answer. */
export async function deliver(stream: Duplex, body: Readable, lent: Lent | undefined, broken: (err: unknown) => CetusError): Promise<void> {
  // Whoever refuses reads no more: its answer says why, not our broken pipe.
  let failure: unknown = new Error('it broke off without an answer');
  stream.on('error', (err) => (failure = err));
  const cut = (): void => {
    if (!body.readableEnded) stream.destroy();
  };
  // What has gone wrong is asked of it below.
  body.once('close', cut).on('error', () => undefined);
  if (body.destroyed) cut();
  if (!lent) body.pipe(stream);
  let answer: string | undefined;
  try {
    for await (const line of lines(stream)) {
      if (lent && line === TAKEN) {
        if (!body.destroyed) stream.write(Buffer.concat([LOAN_GOOD, lent.loan.read]));
      } else if (lent && line === NOT_TAKEN) {
        lent.body.takeBack(lent.loan);
        body.pipe(stream);
      } else {
        answer = line;
        break;
      }
    }
  } catch (err) {
    failure = err;
  } finally {
    body.off('close', cut).unpipe(stream);
    stream.destroy();
  }
  if (body.errored) throw body.errored;
  if (answer === undefined) throw broken(failure);
  if (answer !== '{}') throw fromWire(JSON.parse(answer));
}

const TAKEN = '{"taken":true}';
const NOT_TAKEN = '{"taken":false}';

async function* lines(stream: Duplex): AsyncGenerator<string> {
  let text = '';
  for await (const chunk of stream.setEncoding('utf8') as AsyncIterable<string>) {
    text += chunk;
    for (let end; (end = text.indexOf('\n')) >= 0; text = text.slice(end + 1)) yield text.slice(0, end);
    if (text.length > MAX_ANSWER_BYTES) return;
  }
}
