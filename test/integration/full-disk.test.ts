/** A disk that is full, for real: a small tmpfs. What is written stays whole, what happens is not undone, and all goes on when there is room again. */
import {execFileSync} from 'node:child_process';
import {closeSync, existsSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, statfsSync, truncateSync, writeSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {JsonLines} from '../../lib/agent/ledger/lines';
import type {LogOptions} from '../../lib/agent/logs/options';
import {LogWriter} from '../../lib/agent/logs/writer';
import {NodeStore, type StoredSpec} from '../../lib/agent/store';
import {systemClock} from '../../lib/base/clock';
import {createLog, logFile} from '../../lib/base/log';

const PLAIN: LogOptions = {driver: 'json-file', cached: true, maxBytes: Infinity, maxFiles: 1, compress: false, attrs: ''};
const PAGE = 4096;
let disk: string;

beforeEach(() => {
  disk = mkdtempSync(join(tmpdir(), 'cetus-full-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk]);
});
afterEach(() => {
  execFileSync('umount', ['-l', disk]);
  rmSync(disk, {recursive: true});
});

/** Leaves so many pages. */
function fill(pages = 0): void {
  const fd = openSync(join(disk, 'ballast'), 'a');
  const page = Buffer.alloc(PAGE);
  while (statfsSync(disk).bavail > pages) writeSync(fd, page);
  closeSync(fd);
}
const makeRoom = (): void => truncateSync(join(disk, 'ballast'), 0);

interface Entry { log: string }
const entries = (path: string): string[] => readFileSync(path, 'utf8').split('\n').filter(Boolean).map((line) => (JSON.parse(line) as Entry).log);

test('a log leaves out what the disk does not take, tears no entry, and goes on when there is room', async () => {
  const path = join(disk, 'x-json.log');
  const told: string[] = [];
  const log = new LogWriter(path, PLAIN, systemClock, (lost) => told.push('err' in lost ? String(lost.err) : `${lost.bytes} bytes`));
  log.write(1, Buffer.from('before\n'));
  fill(1);
  // The first page of it would fit.
  const many = 'some line\n'.repeat(1000);
  log.write(1, Buffer.from(many));
  fill();
  log.write(2, Buffer.from(many));
  expect(entries(path)).toEqual(['before\n']);
  expect(told).toEqual([expect.stringContaining('no space left on device')]);
  makeRoom();
  log.write(1, Buffer.from('after\n'));
  expect(entries(path)).toEqual(['before\n', 'after\n']);
  expect(told[1]).toBe(`${2 * many.length} bytes`);
  // And the next agent finds nothing to do again.
  await log.close('suspend');
  await new LogWriter(path, PLAIN, systemClock).close();
  expect(entries(path)).toEqual(['before\n', 'after\n']);
});

test('a rotation on a full disk moves no file twice and gives no descriptor away', async () => {
  const path = join(disk, 'x-json.log');
  const log = new LogWriter(path, {...PLAIN, maxBytes: 500, maxFiles: 2}, systemClock);
  for (let i = 0; i < 5; i += 1) log.write(1, Buffer.from(`old ${i}\n`));
  execFileSync('mount', ['-o', 'remount,nr_inodes=4', disk]);
  fill();
  for (let i = 0; i < 20; i += 1) log.write(1, Buffer.from(`lost ${i}\n`));
  // Whoever opens a file now must not get the log's bytes into it.
  const strangers = Array.from({length: 8}, () => openSync('/dev/null', 'r'));
  expect(entries(existsSync(path) ? path : `${path}.1`)).toContain('old 4\n');
  for (const fd of strangers) closeSync(fd);
  execFileSync('mount', ['-o', 'remount,nr_inodes=0', disk]);
  makeRoom();
  log.write(1, Buffer.from('after\n'));
  expect(entries(path)).toContain('after\n');
  expect([...entries(`${path}.1`), ...entries(path)]).toContain('old 4\n');
  await log.close();
});

test('a container\'s files are replaced whole or not at all', () => {
  const store = new NodeStore(disk);
  const stored = (name: string): StoredSpec => ({spec: {id: 'c1', name, labels: {long: 'x'.repeat(5 * PAGE)}} as never, image: {} as never, parentSnapshot: ''});
  store.saveSpec('c1', stored('before'));
  const room = readdirSync(disk).length;
  fill(2);
  expect(() => store.saveSpec('c1', stored('after'))).toThrow('ENOSPC');
  expect(store.loadSpec('c1')).toEqual(stored('before'));
  expect(readdirSync(store.dir('c1'))).toEqual(['spec.json']);
  expect(readdirSync(disk).length).toBe(room + 1);
});

test('a ledger keeps in memory, in order, what the disk does not take, until it does', async () => {
  const path = join(disk, 'ledger.log');
  const trouble = jest.fn();
  const lines = new JsonLines<{n: number; pad: string}>(path, () => undefined, trouble);
  const numbers = (): number[] => readFileSync(path, 'utf8').split('\n').filter(Boolean).map((line) => (JSON.parse(line) as {n: number}).n);
  const pad = 'x'.repeat(PAGE);
  lines.append({n: 0, pad});
  fill(1);
  for (let n = 1; n < 20; n += 1) lines.append({n, pad});
  expect(numbers().length).toBeLessThan(3);
  expect(trouble).toHaveBeenCalledTimes(1);
  makeRoom();
  while (numbers().length < 20) await new Promise((resolve) => setTimeout(resolve, 20));
  expect(numbers()).toEqual(Array.from({length: 20}, (_, n) => n));
  lines.close();
});

test('a process whose own log finds no room goes on', () => {
  const path = join(disk, 'up.log');
  const log = createLog({name: 'x', stream: logFile(path)});
  log.info('before');
  fill();
  for (let i = 0; i < 100; i += 1) log.info({i}, 'nowhere to go'.repeat(100));
  makeRoom();
  log.info('after');
  const whole = readFileSync(path, 'utf8').split('\n').filter((line) => line.endsWith('}')).map((line) => (JSON.parse(line) as {msg: string}).msg);
  expect(whole[0]).toBe('before');
  expect(whole.at(-1)).toBe('after');
});
