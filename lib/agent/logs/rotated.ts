/** Which rotated files a log has: PATH.1 is the youngest. By what is there, not by what may be: max-file is a person's number. */
import {readdirSync} from 'node:fs';
import {basename, dirname} from 'node:path';

/** Numbers of PATH.N and PATH.N.gz, ascending. */
export function rotatedFiles(path: string): number[] {
  const before = `${basename(path)}.`;
  const found = new Set<number>();
  for (const name of readdirSync(dirname(path))) {
    const number = name.startsWith(before) && /^([1-9]\d*)(\.gz)?$/.exec(name.slice(before.length))?.[1];
    if (number) found.add(Number(number));
  }
  return [...found].sort((a, b) => a - b);
}
