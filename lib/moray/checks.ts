/** What both stores refuse of a call before they look at anything. */
import {CetusError} from '../base/errors';
import {checkKey} from './fields';
import {LIST_LIMIT, type BatchOp, type Etag, type FindOptions} from './moray';

export function checkOp(op: BatchOp): void {
  switch (op.op) {
    case 'put': case 'check':
      checkKey(op.key);
      checkEtag(op.etag);
      return;
    case 'delete':
      checkKey(op.key);
      checkEtag(op.etag);
      if ((op.etag as unknown) === null) throw new CetusError('invalid', 'a delete on condition that nothing is there');
      return;
    case 'update':
      if (typeof op.patch !== 'object' || op.patch === null || Array.isArray(op.patch)) throw new CetusError('invalid', 'a patch is a JSON object');
      return;
    case 'deleteMany':
      return;
    default:
      throw new CetusError('invalid', `unknown operation ${JSON.stringify((op as {op: unknown}).op)}`);
  }
}

function checkEtag(etag: Etag | null | undefined): void {
  if (etag !== undefined && etag !== null && !/^\d{1,19}$/.test(etag)) throw new CetusError('invalid', `bad etag ${JSON.stringify(String(etag).slice(0, 50))}`);
}

export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new CetusError('canceled', 'the caller gave up', {cause: signal.reason});
}

export function checkPage(options: FindOptions): void {
  for (const name of ['limit', 'offset'] as const) {
    const n = options[name];
    if (n !== undefined && (!Number.isSafeInteger(n) || n < 0)) throw new CetusError('invalid', `${name} is a whole number from 0`);
  }
}

export function tooMany(bucket: string): CetusError {
  return new CetusError('invalid', `${bucket}: more than ${LIST_LIMIT} objects without a limit; use find, or give a limit`, {shown: `more than ${LIST_LIMIT} of them`});
}
