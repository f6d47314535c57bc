import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {CgroupGate, procsFile} from '../../lib/agent/runtime/cgroup-gate';
import {until} from '../harness/wait';

const V2 = '30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate';
const HYBRID = ['25 1 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw', '26 25 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu', '31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw'].join('\n');

describe('the file of the own control group', () => {
  test('unified, hybrid, and version 1 alone', () => {
    expect(procsFile('0::/system.slice/cetus.service\n', V2)).toBe('/sys/fs/cgroup/system.slice/cetus.service/cgroup.procs');
    expect(procsFile('1:cpu:/a\n0::/b\n', HYBRID)).toBe('/sys/fs/cgroup/unified/b/cgroup.procs');
    expect(procsFile('1:cpu:/a\n0::/b\n', HYBRID.split('\n').slice(0, 2).join('\n'))).toBe('/sys/fs/cgroup/cpu/a/cgroup.procs');
  });

  test('a mount that shows a part of the hierarchy, and one that does not show us', () => {
    const part = '30 20 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw';
    expect(procsFile('0::/docker/x\n', part)).toBe('/sys/fs/cgroup/cgroup.procs');
    expect(procsFile('0::/docker/x/y\n', part)).toBe('/sys/fs/cgroup/y/cgroup.procs');
    expect(procsFile('0::/elsewhere\n', part)).toBeUndefined();
    expect(procsFile('0::/../x\n', V2)).toBeUndefined();
    expect(procsFile('0::/\n', '20 1 8:1 / / rw - ext4 /dev/sda1 rw')).toBeUndefined();
  });
});

describe('the gate', () => {
  let dir: string;
  let gate: CgroupGate;
  const move = (group: string): void => fs.writeFileSync(path.join(dir, 'cgroup'), `0::/${group}\n`);
  const moves = (group: string): string => fs.readFileSync(path.join(dir, group, 'cgroup.procs'), 'utf8');

  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-gate-'));
    for (const group of ['a', 'b']) {
      fs.mkdirSync(path.join(dir, group));
      fs.writeFileSync(path.join(dir, group, 'cgroup.procs'), '');
    }
    fs.writeFileSync(path.join(dir, 'mountinfo'), `30 20 0:26 / ${dir} rw - cgroup2 cgroup2 rw\n`);
    move('a');
    gate = new CgroupGate({proc: dir});
  });
  afterEach(() => {
    gate.close();
    fs.rmSync(dir, {recursive: true, force: true});
  });

  test('moves this process to where it is, once', async () => {
    gate.open()();
    await until('the move', () => moves('a') === '0');
    move('b');
    await until('the move elsewhere', () => {
      gate.open()();
      return moves('b') !== '';
    });
    expect(moves('a')).toBe('0');
  });

  test('while it is held it is kept open, and no longer', async () => {
    let leave = (): void => undefined;
    // For 200 ms at most: where this process had no turn in that time it is held once more.
    await until('more moves of one hold than its first', async () => {
      const before = moves('a').length;
      leave();
      leave = gate.open();
      const endMs = performance.now() + 150;
      await until('more moves, or the end of its time', () => moves('a').length >= before + 3 || performance.now() > endMs);
      return moves('a').length >= before + 3;
    });
    leave();
    leave();
    const other = gate.open();
    other();
    const settled = moves('a').length;
    move('b');
    await until('the move elsewhere', () => {
      gate.open()();
      return moves('b') !== '';
    });
    // One may have been on its way.
    expect(moves('a').length).toBeLessThanOrEqual(settled + 1);
  });

  test('where there is no such file nothing happens', () => {
    fs.rmSync(path.join(dir, 'mountinfo'));
    expect(() => gate.open()()).not.toThrow();
    gate.close();
    gate.open()();
  });
});
