/**
 * `docker top`: the node's ps, asked for the container's processes, its table cut into fields. The arguments are ps' own, as in the
 * Engine; they never pass a shell. Refuses what would hide or rename the PID column.
 */
import {execFile} from 'node:child_process';
import {CetusError} from '../base/errors';

const DEADLINE_MS = 10_000;
const MAX_OUTPUT = 16 * 1024 * 1024;
/** Long options that name no column: the only "=" that can give a column another header is elsewhere. */
const NO_HEADER = /(^|\s)--(sort|cols|columns|width|rows|lines)=[\w,+-]*(?=\s|$)/g;
const REDEFINES = /\s+([^\s]*)=\s*(PID[^\s]*)/g;

export interface ProcessTable { Titles: string[]; Processes: string[][] }

export async function top(pids: number[], psArgs: string): Promise<ProcessTable> {
  const args = (psArgs || '-ef').split(' ').filter(Boolean);
  for (const [, key, value] of psArgs.matchAll(REDEFINES))
    if (key && key !== 'pid') throw new CetusError('invalid', `specifying "${key}=${value}" is not allowed`);
  // Asked for these pids alone ps is ten times quicker; some options exclude -q, and then the table is filtered below.
  if (psArgs.includes('\0')) throw new CetusError('invalid', 'error running ps');
  const output = await ps([...args, `-q${pids.join(',')}`]).catch((err: unknown) => {
    // Headers of the caller's own may put any number below "PID": then a filter would let processes of others through.
    if (psArgs.replace(NO_HEADER, ' ').includes('=')) throw err;
    return ps(args);
  });
  return parsePs(output, pids);
}

/** The rows of the container's processes. Pure. `invalid`, as in the Engine, where a column before PID has several words; what they are may be of others, and is not said. */
export function parsePs(output: string, pids: number[]): ProcessTable {
  const [head, ...rows] = output.split('\n');
  const titles = fields(head ?? '');
  const pidColumn = titles.indexOf('PID');
  if (pidColumn < 0) throw new CetusError('invalid', 'Couldn\'t find PID field in ps output');
  const wanted = new Set(pids.map(String));
  const processes: string[][] = [];
  // With some options ps prints threads below their process, with "-" for the pid.
  let ofWanted = false;
  for (const row of rows) {
    if (!row) continue;
    const cells = fields(row);
    const pid = cells[pidColumn];
    if (pid === undefined) continue;
    if (pid !== '-' && !/^\d+$/.test(pid)) throw new CetusError('invalid', 'unexpected pid in the output of ps: a column before PID has several words, let PID come first');
    if (pid !== '-') ofWanted = wanted.has(pid);
    if (!ofWanted) continue;
    processes.push([...cells.slice(0, titles.length - 1), cells.slice(titles.length - 1).join(' ')]);
  }
  return {Titles: titles, Processes: processes};
}

function fields(line: string): string[] {
  return line.trim().split(/[ \t]+/);
}

function ps(args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('ps', args, {timeout: DEADLINE_MS, maxBuffer: MAX_OUTPUT}, (err, stdout, stderr) => {
      if (!err) return resolve(stdout);
      const line = stderr.split('\n')[0] ?? '';
      reject(new CetusError('invalid', line ? `ps: ${line.replace(/^ps: /, '')}` : typeof err.code === 'number' ? `ps: exit status ${err.code}` : 'error running ps', {cause: err}));
    });
  });
}
