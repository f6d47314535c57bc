/** What a killed agent leaves of a log's last step, at every place where a kill may cut it: the next writer makes it whole, and nothing comes twice. */
import {copyFileSync, existsSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync, writeSync, closeSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import fc from 'fast-check';
import {systemClock} from '../../../lib/base/clock';
import type {LogOptions} from '../../../lib/agent/logs/options';
import {LogWriter, MAX_LINE} from '../../../lib/agent/logs/writer';

const PLAIN: LogOptions = {driver: 'json-file', cached: true, maxBytes: Infinity, maxFiles: 1, compress: false, attrs: ''};

let dir: string;
let path: string;
const fresh = (): void => {
  if (dir) rmSync(dir, {recursive: true, force: true});
  dir = mkdtempSync(join(tmpdir(), 'cetus-redo-'));
  path = join(dir, 'x-json.log');
};
beforeEach(fresh);
afterEach(() => rmSync(dir, {recursive: true, force: true}));

const writer = (options: Partial<LogOptions> = {}): LogWriter => new LogWriter(path, {...PLAIN, ...options}, systemClock);

/** Text of both streams, over the given files; throws at an entry that is torn. */
function textOf(...files: string[]): Record<1 | 2, string> {
  const out = {1: '', 2: ''};
  for (const file of files) {
    for (const line of readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
      const {log, stream} = JSON.parse(line) as {log: string; stream: string};
      out[stream === 'stdout' ? 1 : 2] += log;
    }
  }
  return out;
}

const chunk = fc.tuple(fc.constantFrom(1 as const, 2 as const), fc.oneof(
  fc.array(fc.constantFrom('a', '\n', 'bc', 'line\n'), {minLength: 1, maxLength: 8}).map((parts) => parts.join('')),
  fc.constantFrom('x'.repeat(MAX_LINE), `${'y'.repeat(MAX_LINE + 5)}\n`, 'z\n'.repeat(3000), 'w'.repeat(70_000)),
));

test('a log that was cut anywhere in its last step ends as if nobody had died, byte for byte', async () => {
  await fc.assert(fc.asyncProperty(fc.array(chunk, {minLength: 1, maxLength: 8}), fc.double({min: 0, max: 1, noNaN: true}), async (chunks, where) => {
    fresh();
    const killed = writer();
    let before = 0;
    for (const [stream, text] of chunks) {
      // A longer chunk is done in several steps, of which a kill cuts the last.
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; at += 65536) {
        before = killed.bytes;
        killed.write(stream, bytes.subarray(at, at + 65536));
      }
    }
    const whole = readFileSync(path);
    truncateSync(path, before + Math.floor((whole.length - before) * where));
    const next = writer();
    expect(readFileSync(path).equals(whole)).toBe(true);
    // And a second death directly behind the first changes nothing.
    const last = writer();
    expect(readFileSync(path).equals(whole)).toBe(true);
    last.write(1, Buffer.from('!\n'));
    await last.close();
    for (const one of [next, killed]) await one.close('suspend');
    const expected = {1: '', 2: ''};
    for (const [stream, text] of [...chunks, [1, '!\n'] as const]) expected[stream] += text;
    expect(textOf(path)).toEqual(expected);
    expect(existsSync(`${path}.open`)).toBe(false);
  }), {numRuns: 150});
});

test('a record that was torn itself: that one chunk is gone, and nothing that was before it', async () => {
  for (const [kept, torn] of [['one\nhalf', ' of it\n'], ['half', '\n'], ['one\n', 'two\n'], ['', 'two\n']]) {
    fresh();
    const killed = writer();
    if (kept) killed.write(1, Buffer.from(kept));
    const log = readFileSync(path);
    const records = existsSync(`${path}.open`) ? readFileSync(`${path}.open`) : Buffer.alloc(0);
    killed.write(1, Buffer.from(torn));
    const after = readFileSync(`${path}.open`);
    await killed.close('suspend');
    // As the kernel leaves it: the first pages of the new record, the old bytes behind them.
    const differs = after.findIndex((byte, at) => byte !== (records[at] ?? 0));
    const half = Buffer.concat([after.subarray(0, differs + 8), Buffer.concat([records, Buffer.alloc(after.length)]).subarray(differs + 8, Math.max(records.length, differs + 8))]);
    writeFileSync(path, log);
    writeFileSync(`${path}.open`, half);
    // The inode is the old one's: written in place.
    const next = writer();
    next.write(1, Buffer.from(' end\n'));
    await next.close();
    expect(textOf(path)).toEqual({1: `${kept} end\n`, 2: ''});
  }
});

test('the end of a stream is done again, too', async () => {
  const killed = writer();
  killed.write(1, Buffer.from('no newline'));
  killed.write(2, Buffer.from('err'));
  const before = killed.bytes;
  killed.end(1);
  const whole = readFileSync(path);
  truncateSync(path, before);
  const next = writer();
  expect(readFileSync(path).equals(whole)).toBe(true);
  next.write(1, Buffer.from('next run\n'));
  next.end(2);
  await next.close();
  await killed.close('suspend');
  expect(textOf(path)).toEqual({1: 'no newlinenext run\n', 2: 'err'});
});

describe('killed at a rotation in the middle of a chunk', () => {
  const options = {maxBytes: 1_000, maxFiles: 3};
  const lines = Array.from({length: 15}, (_, n) => `line ${n} ${'.'.repeat(20)}\n`);

  /** One chunk of which the first file takes the first part, the second the rest. */
  async function rotated(): Promise<{first: Buffer; second: Buffer}> {
    const killed = writer(options);
    killed.write(1, Buffer.from(lines.join('')));
    await killed.close('suspend');
    expect(killed.rotations).toBe(1);
    return {first: readFileSync(`${path}.1`), second: readFileSync(path)};
  }
  async function expectWhole({first, second}: {first: Buffer; second: Buffer}): Promise<void> {
    const next = writer(options);
    expect(readFileSync(`${path}.1`).equals(first)).toBe(true);
    expect(readFileSync(path).equals(second)).toBe(true);
    expect(existsSync(`${path}.2`)).toBe(false);
    await next.close();
  }

  test('before it', async () => {
    const files = await rotated();
    renameSync(`${path}.1`, path);
    await expectWhole(files);
  });

  test('between its two renames', async () => {
    const files = await rotated();
    rmSync(path);
    await expectWhole(files);
  });

  test('behind it, with half of an entry', async () => {
    const files = await rotated();
    truncateSync(path, 50);
    await expectWhole(files);
  });
});

test('a log that somebody put in the place of ours is left as it is', async () => {
  const killed = writer();
  killed.write(1, Buffer.from('ours\nhalf'));
  await killed.close('suspend');
  copyFileSync(path, `${path}.copy`);
  renameSync(`${path}.copy`, path);
  const fd = openSync(path, 'a');
  writeSync(fd, '{"log":"theirs\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n');
  closeSync(fd);
  const next = writer();
  next.write(1, Buffer.from('new\n'));
  await next.close();
  expect(textOf(path)[1]).toBe('ours\ntheirs\nnew\n');
});
