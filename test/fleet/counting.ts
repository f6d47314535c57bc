/** A store that counts what is written: calls that commit, and rows. */
import type {Moray} from '../../lib/moray/moray';

export interface Counted { commits: number; rows: number }

export function counting(moray: Moray): {moray: Moray; counted: Counted} {
  const counted: Counted = {commits: 0, rows: 0};
  const wrapped = new Proxy(moray, {
    get(target, property) {
      const member = Reflect.get(target, property) as unknown;
      if (typeof member !== 'function') return member;
      return (...args: unknown[]) => {
        if (property === 'batch') counted.rows += (args[0] as {op: string}[]).filter(({op}) => op !== 'check').length;
        if (property === 'put' || property === 'delete') counted.rows += 1;
        if (property === 'batch' || property === 'put' || property === 'delete') counted.commits += 1;
        return (member as (...a: unknown[]) => unknown).apply(target, args);
      };
    },
  });
  return {moray: wrapped, counted};
}
