/** Another job has the target, and the time to wait for it is over. */
import {CetusError, isCetusError} from '../base/errors';

/** `holder`: in a person's words. */
export function busy(target: string, holder: string): CetusError {
  return new CetusError('conflict', `${target} is busy: job ${holder} is at work on it`, {info: {target, busy: holder}});
}

export function isBusy(err: unknown): boolean {
  return isCetusError(err, 'conflict') && err.info['busy'] !== undefined;
}
