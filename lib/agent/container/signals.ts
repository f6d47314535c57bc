/** Signals by name or number, as `docker kill --signal` and STOPSIGNAL write them. */
import {constants} from 'node:os';
import {CetusError} from '../../base/errors';

export const SIGKILL = 9;
export const SIGTERM = 15;
const LAST_SIGNAL = 64;
// Linux real-time signals, which Node does not list.
const RTMIN = 34;
const RTMAX = 64;

export function parseSignal(text: string): number {
  const number = /^\d+$/.test(text) ? Number(text) : byName(text);
  if (number === undefined || number < 1 || number > LAST_SIGNAL) throw new CetusError('invalid', `invalid signal: ${text}`);
  return number;
}

function byName(text: string): number | undefined {
  const name = text.toUpperCase().replace(/^SIG/, '');
  const realTime = /^(RTMIN|RTMAX)(?:([+-])(\d+))?$/.exec(name);
  if (realTime) {
    const base = realTime[1] === 'RTMIN' ? RTMIN : RTMAX;
    return base + (realTime[2] === '-' ? -1 : 1) * Number(realTime[3] ?? 0);
  }
  return (constants.signals as Record<string, number>)[`SIG${name}`];
}
