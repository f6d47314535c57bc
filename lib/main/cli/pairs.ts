/** KEY=VALUE and durations as operators write them. Pure. */
import {CetusError} from '../../base/errors';

/** A label without `=` is one with an empty value, as Docker has it. */
export function pairs(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(given.map((text) => {
    const at = text.indexOf('=');
    const [key, value] = at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
    if (key === '') throw new CetusError('invalid', `label ${JSON.stringify(text)}: expected KEY=VALUE`);
    return [key, value];
  }));
}

const UNITS: Readonly<Record<string, number>> = {s: 1000, m: 60_000, h: 3_600_000, d: 24 * 3_600_000};

/** "90s", "30m", "1h", "1h30m", "7d". */
export function durationMs(text: string): number {
  if (!/^(\d+[smhd])+$/.test(text)) throw new CetusError('invalid', `duration ${JSON.stringify(text)}: expected for example 90s, 30m, 1h30m or 7d`);
  return [...text.matchAll(/(\d+)([smhd])/g)].reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit], 0);
}
