import {execFileSync} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {Fifos, openRead, openWrite, purgeFifos} from '../../lib/agent/runtime/fifos';
import {silentLog} from '../../lib/base/log';
import {until} from '../harness/wait';

let directory: string;
let fifos: Fifos;
beforeEach(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-fifos-'));
  fifos = new Fifos(directory, silentLog());
  await fifos.open();
});
afterEach(async () => {
  await fifos.close();
  await purgeFifos(directory);
  fs.rmSync(directory, {recursive: true, force: true});
});

const id = (): string => randomBytes(8).toString('hex');
const keeperOf = (set: string): number => Number(fs.readFileSync(path.join(set, 'keeper'), 'utf8'));
/** A killed one is a zombie until Node has reaped it. */
const lives = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};

describe('the FIFOs of processes', () => {
  test('FIFOs for our user alone, whatever the umask takes', async () => {
    const set = await fifos.claim(id(), '');
    for (const name of ['stdin', 'stdout', 'stderr']) {
      const {mode} = fs.statSync(path.join(set, name));
      expect([mode & fs.constants.S_IFMT, mode & 0o777]).toEqual([fs.constants.S_IFIFO, 0o600]);
    }
  });

  test('what is written while nobody of ours reads is kept, also where other sets of the same keeper are gone', async () => {
    const [first, second] = [id(), id()];
    const [gone, kept] = [await fifos.claim(first, ''), await fifos.claim(second, '')];
    expect(keeperOf(gone)).toBe(keeperOf(kept));
    for (const set of [gone, kept]) {
      const end = openWrite(path.join(set, 'stdout'));
      fs.writeSync(end, 'said');
      fs.closeSync(end);
    }
    fifos.remove(first, '');
    const end = openRead(path.join(kept, 'stdout'));
    expect(fs.readSync(end, Buffer.alloc(10))).toBe(4);
    fs.closeSync(end);
  });

  test('a keeper ends with the last of its sets, and not before', async () => {
    const ids = Array.from({length: 40}, id);
    const keepers: number[] = [];
    for (const each of ids) keepers.push(keeperOf(await fifos.claim(each, '')));
    expect(new Set(keepers).size).toBeGreaterThan(1);
    const [keeper] = keepers;
    const its = ids.filter((_, n) => keepers[n] === keeper);
    for (const each of ids.filter((_, n) => keepers[n] !== keeper)) fifos.remove(each, '');
    for (const each of its.slice(1)) fifos.remove(each, '');
    await fifos.close(); // the spare ones go
    expect(lives(keeper!)).toBe(true);
    fifos.remove(its[0]!, '');
    await until('the keeper to end', async () => !lives(keeper!));
    fifos.remove(its[0]!, ''); // repeatable
  });

  test('the next life ends what the last one held in reserve, and keeps what a container has', async () => {
    const one = id();
    // Made by a process that is gone: another one's spare sets are its own.
    const script = `const {Fifos} = require(${JSON.stringify(path.resolve('dist/agent/runtime/fifos.js'))});
      const f = new Fifos(${JSON.stringify(directory)}, {error() {}, warn() {}}); f.open().then(() => f.claim(${JSON.stringify(one)}, '')).then(() => process.kill(process.pid, 9));`;
    try { execFileSync(process.execPath, ['-e', script], {stdio: 'ignore'}); } catch { /* it killed itself */ }
    const keeper = keeperOf(path.join(directory, 'io', one));
    const next = new Fifos(directory, silentLog());
    await next.open();
    expect(lives(keeper)).toBe(true);
    next.remove(one, '');
    await until('the keeper to end', async () => !lives(keeper));
    await next.close();
  });

  test('a second set for the same process is a conflict, one for an exec of nothing is not found; neither loses a set', async () => {
    const one = id();
    await fifos.claim(one, '');
    await expect(fifos.claim(one, '')).rejects.toMatchObject({kind: 'conflict'});
    await expect(fifos.claim(id(), 'exec')).rejects.toMatchObject({kind: 'notFound'});
    expect(path.basename(await fifos.claim(one, 'exec'))).toBe('exec-exec');
  });
});
