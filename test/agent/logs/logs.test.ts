import {appendFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import fc from 'fast-check';
import {systemClock} from '../../../lib/base/clock';
import {EntryEncoder} from '../../../lib/agent/logs/encode';
import {checkLogOptions, type LogOptions, parseLogOptions} from '../../../lib/agent/logs/options';
import {type ReadQuery, readLogs} from '../../../lib/agent/logs/read';
import {LogWriter, MAX_LINE} from '../../../lib/agent/logs/writer';

const PLAIN: LogOptions = {driver: 'json-file', cached: true, maxBytes: Infinity, maxFiles: 1, compress: false, attrs: ''};
const ALL: ReadQuery = {stdout: true, stderr: true, timestamps: false, details: false, sinceNs: '', untilNs: '', tail: -1, follow: false, multiplex: true};
const FRAME_HEADER = 8;

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cetus-log-'));
  path = join(dir, 'x-json.log');
});
afterEach(() => rmSync(dir, {recursive: true, force: true}));

const writer = (options: Partial<LogOptions> = {}): LogWriter => new LogWriter(path, {...PLAIN, ...options}, systemClock);

async function read(query: Partial<ReadQuery> = {}, log?: LogWriter, maxFiles = 1, came?: (bytes: number) => void): Promise<{1: string; 2: string; frames: string[]}> {
  const chunks: Buffer[] = [];
  for await (const chunk of readLogs({path, maxFiles, writer: log}, {...ALL, ...query})) {
    chunks.push(chunk);
    came?.(chunk.length);
  }
  return split(Buffer.concat(chunks));
}

function split(all: Buffer): {1: string; 2: string; frames: string[]} {
  const out: Record<1 | 2, Buffer[]> = {1: [], 2: []};
  const frames: string[] = [];
  for (let at = 0; at < all.length;) {
    const length = all.readUInt32BE(at + 4);
    const payload = all.subarray(at + 8, at + 8 + length);
    out[all[at] as 1 | 2].push(payload);
    frames.push(payload.toString());
    at += 8 + length;
  }
  return {1: Buffer.concat(out[1]).toString(), 2: Buffer.concat(out[2]).toString(), frames};
}

function entries(): {log: string; stream: string; time: string; attrs?: object}[] {
  return readFileSync(path, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line) as never);
}

describe('an entry', () => {
  const encode = (text: Buffer, newline = true): string => {
    const encoder = new EntryEncoder('');
    encoder.add(text, 0, text.length, newline, 1, 1_700_000_000, 120_000_000);
    return encoder.take().toString();
  };

  it('is the Engine\'s, byte for byte', () => {
    expect(encode(Buffer.from('a "b" \\ <c> & \t\r\x01 ü\u2028'))).toBe(
      '{"log":"a \\"b\\" \\\\ \\u003cc\\u003e \\u0026 \\u0009\\r\\u0001 ü\\u2028\\n","stream":"stdout","time":"2023-11-14T22:13:20.12Z"}\n');
    expect(encode(Buffer.from([0x61, 0xff, 0xe2, 0x82, 0x62]), false)).toBe('{"log":"a\\ufffd\\ufffd\\ufffdb","stream":"stdout","time":"2023-11-14T22:13:20.12Z"}\n');
  });

  it('is JSON that means the text, for any text', () => {
    fc.assert(fc.property(fc.string({unit: 'binary'}), (text) => {
      expect((JSON.parse(encode(Buffer.from(text), false)) as {log: string}).log).toBe(Buffer.from(text).toString());
    }));
  });
});

describe('a log', () => {
  it('gives back what was written, whatever the chunks', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.tuple(fc.constantFrom(1 as const, 2 as const), fc.string({unit: 'grapheme', maxLength: 40}), fc.boolean())), async (chunks) => {
      rmSync(dir, {recursive: true, force: true});
      dir = mkdtempSync(join(tmpdir(), 'cetus-log-'));
      path = join(dir, 'x-json.log');
      const log = writer();
      const expected: Record<1 | 2, string> = {1: '', 2: ''};
      for (const [stream, text, newline] of chunks) {
        const whole = newline ? `${text}\n` : text;
        expected[stream] += whole;
        log.write(stream, Buffer.from(whole));
      }
      await log.close();
      const got = await read();
      expect(got[1]).toBe(expected[1]);
      expect(got[2]).toBe(expected[2]);
    }), {numRuns: 60});
  });

  it('stamps entries in strictly rising order and cuts long lines at characters', async () => {
    const log = writer();
    log.write(1, Buffer.from('ü'.repeat(MAX_LINE)));
    log.write(1, Buffer.from('\nx\ny\n'));
    await log.close();
    const times = entries().map((e) => e.time.slice(0, -1).padEnd(29, '0'));
    expect([...times].sort()).toEqual(times);
    expect(new Set(times).size).toBe(times.length);
    expect((await read())[1]).toBe(`${'ü'.repeat(MAX_LINE)}\nx\ny\n`);
    expect(entries().every((e) => Buffer.byteLength(e.log) <= MAX_LINE + 1 && !e.log.includes('\ufffd'))).toBe(true);
  });

  it('tails entries from the end, also over blocks and rotated files', async () => {
    const log = writer({maxBytes: 20_000, maxFiles: 4});
    const lines = Array.from({length: 600}, (_, i) => `line ${i} ${'z'.repeat(i % 50)}\n`);
    for (const line of lines) log.write(1, Buffer.from(line));
    for (const n of [0, 1, 2, 3, 99, 200, 400]) expect((await read({tail: n}, log, 4)).frames).toEqual(lines.slice(lines.length - n));
    const all = (await read({}, log, 4)).frames;
    expect(all).toEqual(lines.slice(-all.length));
    expect(all.length).toBeGreaterThan(400);
    await log.close();
  });

  it('costs what there is, not what max-file would allow; a file missing in between hides no other', async () => {
    const huge = {maxBytes: 2_000, maxFiles: 1_000_000_000};
    const log = writer(huge);
    const lines = Array.from({length: 100}, (_, i) => `line ${i} ${'z'.repeat(50)}\n`);
    for (const line of lines) log.write(1, Buffer.from(line));
    await log.close();
    expect((await read({}, undefined, huge.maxFiles)).frames).toEqual(lines);
    // As a kill in the middle of a rotation leaves it.
    renameSync(`${path}.3`, `${path}.missing`);
    const next = writer(huge);
    for (const line of lines) next.write(1, Buffer.from(line));
    await next.close();
    const all = (await read({}, undefined, huge.maxFiles)).frames;
    expect(all[0]).toBe(lines[0]);
    expect(all.slice(-100)).toEqual(lines);
    expect(all.length).toBeGreaterThan(150);
  });

  it('keeps times within bounds and prints them with nine digits', async () => {
    const log = writer();
    log.write(1, Buffer.from('one\n'));
    const between = systemClock.nowNs() + 1_000n;
    while (systemClock.nowNs() < between + 1_000n);
    log.write(1, Buffer.from('two\n'));
    await log.close();
    expect((await read({sinceNs: String(between)})).frames).toEqual(['two\n']);
    expect((await read({untilNs: String(between)})).frames).toEqual(['one\n']);
    expect((await read({timestamps: true})).frames[0]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one\n$/);
    expect((await read({stdout: false})).frames).toEqual([]);
  });

  it('is followed through rotation and compression without loss, until the writer closes', async () => {
    const log = writer({maxBytes: 2_000, maxFiles: 5, compress: true});
    const lines = Array.from({length: 400}, (_, i) => `line ${i}\n`);
    let ahead = 0;
    const reading = read({follow: true}, log, 5, (bytes) => { ahead -= bytes; });
    for (const line of lines) {
      log.write(1, Buffer.from(line));
      ahead += FRAME_HEADER + line.length;
      // No further ahead of the reader than the files reach that are kept; a file takes some 500 bytes of frames.
      while (ahead > 1_000) await new Promise((resolve) => setImmediate(resolve));
    }
    await log.close();
    expect((await reading).frames).toEqual(lines);
    expect(existsSync(`${path}.2.gz`)).toBe(true);
    expect(existsSync(`${path}.5`) || existsSync(`${path}.5.gz`)).toBe(false);
  });

  it('neither loses nor doubles an open line when its writer is suspended', async () => {
    for (let cut = 0; cut < 4; cut += 1) {
      rmSync(dir, {recursive: true, force: true});
      dir = mkdtempSync(join(tmpdir(), 'cetus-log-'));
      path = join(dir, 'x-json.log');
      const pieces = ['first', ' half', ' and\nsecond', ' line\n'];
      const out: LogWriter[] = [writer()];
      for (const [i, piece] of pieces.entries()) {
        // The old writer is left as kill -9 leaves it: open, never closed.
        if (i === cut) out.push(writer());
        out.at(-1)!.write(1, Buffer.from(piece));
      }
      expect((await read({})).frames).toEqual(['first half and\n', 'second line\n']);
      for (const one of out.reverse()) await one.close('suspend');
    }
  });

  it('skips what is torn and goes on behind it', async () => {
    const log = writer();
    log.write(1, Buffer.from('one\n'));
    await log.close();
    appendFileSync(path, '{"log":"tor');
    const next = writer();
    next.write(1, Buffer.from('two\n'));
    await next.close();
    expect((await read()).frames).toEqual(['one\n', 'two\n']);
  });
});

describe('log options', () => {
  const spec = {id: '0123456789abcdef', name: 'web', image: {id: 'sha256:abcdef', reference: 'busybox', manifestDigest: ''}, config: {Labels: {a: '1', b: '2'}, Env: ['X=y']}};
  it('are the Engine\'s, and strangers are refused', () => {
    expect(parseLogOptions({Type: 'json-file', Config: {'max-size': '10m', 'max-file': '3', compress: 'true', labels: 'a', env: 'X'}}, spec))
      .toEqual({driver: 'json-file', cached: true, maxBytes: 10 * 1024 * 1024, maxFiles: 3, compress: true, attrs: '{"a":"1","X":"y"}'});
    expect(() => parseLogOptions({Type: 'gelf'}, spec)).toThrow("no log driver named 'gelf'");
    expect(() => parseLogOptions({Config: {nonsense: '1'}}, spec)).toThrow("unknown log opt 'nonsense' for json-file log driver");
    expect(() => parseLogOptions({Config: {'max-size': '-3'}}, spec)).toThrow('invalid size');
    expect(() => checkLogOptions({Config: {'max-size': '1k', 'max-file': '1001'}}, spec)).toThrow('max-file cannot be more than 1000');
    checkLogOptions({Config: {'max-size': '1k', 'max-file': '1000'}}, spec);
  });

  it('names are chosen by patterns, in linear time', () => {
    const labelled = {...spec, config: {Labels: {'app.name': '1', other: '2', [`${'a'.repeat(200)}!`]: '3'}}};
    expect(parseLogOptions({Config: {'labels-regex': '^app\\.'}}, labelled).attrs).toBe('{"app.name":"1"}');
    // A backtracking engine would be at it for ever.
    expect(parseLogOptions({Config: {'labels-regex': '^(a+)+$'}}, labelled).attrs).toBe('');
    expect(() => parseLogOptions({Config: {'labels-regex': '('}}, labelled)).toThrow('invalid regular expression');
  });

  it('mode, buffer and cache are every driver\'s', () => {
    expect(parseLogOptions({Config: {mode: 'non-blocking', 'max-buffer-size': '4k', 'cache-disabled': 'true'}}, spec)).toMatchObject({cached: true, bufferBytes: 4096});
    expect(parseLogOptions({Type: 'syslog', Config: {'cache-max-size': '1m', 'cache-max-file': '2', 'cache-compress': 'false'}}, spec))
      .toMatchObject({cached: true, maxBytes: 2 ** 20, maxFiles: 2, compress: false, syslog: {address: {proto: 'local'}, facility: 24, format: 'unix', tag: '{{.ID}}'}});
    expect(parseLogOptions({Type: 'syslog', Config: {'cache-disabled': '1'}}, spec)).toMatchObject({cached: false});
    const refused: [Record<string, string>, string][] = [
      [{mode: 'x'}, 'logger: logging mode not supported: x'], [{'max-buffer-size': '1m'}, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"],
      [{mode: 'non-blocking', 'max-buffer-size': 'foo'}, "error parsing option max-buffer-size: invalid size: 'foo'"], [{'cache-disabled': 'foo'}, 'invalid value for option cache-disabled: foo'],
      [{tag: '{{.Foo}}'}, 'failed to initialize logging driver: template: log-tag:1:2: executing "log-tag" at <.Foo>: can\'t evaluate field Foo in type *logger.Info'],
      [{tag: '{{if .Name}}x{{end}}'}, "log opt 'tag': {{if .Name}} is not supported"],
    ];
    for (const [Config, message] of refused) expect(() => parseLogOptions({Config}, spec)).toThrow(message);
    expect(parseLogOptions({Config: {tag: '{{.Name}}/{{ .ID }}/{{.ImageName}}/{{.DaemonName}}'}}, spec).attrs).toBe('{"tag":"web/0123456789ab/busybox/docker"}');
  });
});
