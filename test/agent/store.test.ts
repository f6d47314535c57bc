import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {newRecord} from '../../lib/agent/container/record';
import {NodeStore} from '../../lib/agent/store';

describe('a container\'s record on disk', () => {
  let dir: string;
  let store: NodeStore;
  const file = (): string => path.join(store.dir('c1'), 'state.log');
  const task = (): string | undefined => store.loadRecord('c1')?.task;
  const save = (name: string): void => store.saveRecord('c1', {...newRecord('c1'), task: name});

  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-store-'));
    store = new NodeStore(dir);
    fs.mkdirSync(store.dir('c1'));
  });
  afterEach(() => fs.rmSync(dir, {recursive: true}));

  it('is the last one saved, also for the next life', () => {
    expect(task()).toBeUndefined();
    for (const name of ['a', 'b', 'c']) save(name);
    expect(new NodeStore(dir).loadRecord('c1')?.task).toBe('c');
  });

  it('is the last whole one where a line is torn, and what is saved after it stands', () => {
    save('a');
    const whole = fs.statSync(file()).size;
    save('b');
    for (let size = fs.statSync(file()).size - 1; size >= whole; size -= 7) {
      fs.truncateSync(file(), size);
      expect(task()).toBe('a');
    }
    fs.appendFileSync(file(), '\n{"task":"tor');
    save('c');
    expect(task()).toBe('c');
    fs.truncateSync(file(), 1);
    expect(task()).toBeUndefined();
  });

  it('does not grow without bound', () => {
    for (let n = 0; n < 1000; n += 1) save(`${n}-${'x'.repeat(500)}`);
    expect(fs.statSync(file()).size).toBeLessThan(160 * 1024);
    expect(task()).toMatch(/^999-/);
  });
});
