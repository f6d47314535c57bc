/** Volumes that are mounts: held by many, mounted once, let go of by the last, taken up by the next life, and never removed with what is mounted. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import {DrivenVolumes} from '../../../lib/agent/volumes/driven';
import type {MountCall} from '../../../lib/agent/volumes/driver-options';
import type {Mounter} from '../../../lib/agent/volumes/mounter';

class FakeMounter implements Mounter {
  readonly on: string[] = [];
  readonly made: MountCall[] = [];
  refuse: {failed: number; why: string} | undefined;
  async mount(calls: MountCall[]): Promise<{failed?: number; why?: string}> {
    await new Promise(setImmediate);
    for (const [n, call] of calls.entries()) {
      if (this.refuse?.failed === n) return this.refuse;
      this.made.push(call);
      if (call.op === 'mount') this.on.push(call.target);
    }
    return {};
  }
  async unmount(at: string): Promise<void> {
    await new Promise(setImmediate);
    if (!this.on.includes(at)) throw new Error(`${at} is not mounted`);
    this.on.splice(this.on.lastIndexOf(at), 1);
  }
  mounted(directory: string): Map<string, number> {
    const found = new Map<string, number>();
    for (const at of this.on) if (at.startsWith(`${directory}/`)) found.set(at, (found.get(at) ?? 0) + 1);
    return found;
  }
  async resolve(host: string): Promise<string> {
    throw new Error(`lookup ${host}: no such host`);
  }
}

let dir: string;
let mounter: FakeMounter;
const pathOf = (id: string): string => path.join(dir, 'volumes', id, '_data');
const life = (): DrivenVolumes => new DrivenVolumes({path: pathOf, mounter, pin: async (device) => ({path: `/pinned${device}`, release: async () => undefined})});
let volumes: DrivenVolumes;

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-driven-'));
  mounter = new FakeMounter();
  volumes = life();
  for (const id of ['plain', 'ram', 'shared']) fs.mkdirSync(pathOf(id), {recursive: true});
  volumes.remember('ram', {options: {type: 'tmpfs', device: 'tmpfs', o: 'size=1m'}});
  volumes.remember('shared', {options: {type: 'none', device: '/srv/x', o: 'bind,ro'}, within: '/srv'});
});
afterEach(() => fs.rmSync(dir, {recursive: true}));

test('the first holder mounts, the last one unmounts; what has no options is none of ours', async () => {
  await Promise.all(['a', 'b', 'a'].map((holder) => volumes.hold('ram', holder)));
  await volumes.hold('plain', 'a');
  expect(mounter.made).toEqual([{op: 'mount', source: 'tmpfs', target: pathOf('ram'), type: 'tmpfs', flags: 0, data: 'size=1m'}]);
  await volumes.release('a');
  await volumes.release('nobody');
  expect(mounter.on).toEqual([pathOf('ram')]);
  await volumes.release('b');
  expect(mounter.on).toEqual([]);
  expect([volumes.isDriven('ram'), volumes.isDriven('plain'), volumes.isDriven('unknown')]).toEqual([true, false, false]);
});

test('a directory that only some binds allow is the one that was judged', async () => {
  await volumes.hold('shared', 'a');
  expect(mounter.made.map((call) => [call.op, call.source])).toEqual([['mount', '/pinned/srv/x'], ['remount-ro', '']]);
});

test('a call that the kernel refuses leaves nothing mounted, and the next holder tries again', async () => {
  mounter.refuse = {failed: 1, why: 'operation not permitted'};
  await expect(volumes.hold('shared', 'a')).rejects.toThrow(`failed to mount local volume: remount-ro ${pathOf('shared')}, flags: 0x1021: operation not permitted`);
  expect(mounter.on).toEqual([]);
  mounter.refuse = undefined;
  await volumes.hold('shared', 'b');
  expect(mounter.on).toEqual([pathOf('shared')]);
});

test('the next life takes up what running containers hold, and unmounts the rest', async () => {
  await volumes.hold('ram', 'a');
  await volumes.hold('shared', 'gone');
  const next = life();
  await next.recover([{volumeId: 'ram', holder: 'a'}, {volumeId: 'plain', holder: 'a'}], path.join(dir, 'volumes'));
  expect(mounter.on).toEqual([pathOf('ram')]);
  await next.hold('ram', 'b');
  expect(mounter.made).toHaveLength(3);
  await next.release('a');
  await next.release('b');
  expect(mounter.on).toEqual([]);
});

test('nobody removes a volume that is held, or that stays mounted', async () => {
  await volumes.hold('ram', 'a');
  await expect(volumes.forget('ram')).rejects.toThrow('volume is in use');
  await volumes.release('a');
  mounter.on.push(pathOf('ram'));
  await volumes.forget('ram');
  expect(mounter.on).toEqual([]);
  volumes.remember('ram', {options: {type: 'tmpfs', device: 'tmpfs'}});
  mounter.on.push(pathOf('ram'));
  mounter.unmount = async () => undefined;
  await expect(volumes.forget('ram')).rejects.toThrow('volume ram stays mounted');
  await volumes.forget('plain');
});

test('property: whatever is held and let go of at once, a volume is mounted once while somebody holds it, and else not at all', async () => {
  const step = fc.record({hold: fc.boolean(), volume: fc.constantFrom('ram', 'shared'), holder: fc.constantFrom('a', 'b', 'c'), wait: fc.boolean()});
  await fc.assert(fc.asyncProperty(fc.array(step, {maxLength: 30}), async (steps) => {
    mounter.on.length = 0;
    const subject = life();
    const held = new Map<string, Set<string>>([['ram', new Set()], ['shared', new Set()]]);
    let under: Promise<unknown>[] = [];
    for (const {hold, volume, holder, wait} of steps) {
      // A container's own start and end never overlap.
      if (wait || !hold) await Promise.all(under.splice(0));
      under.push(hold ? subject.hold(volume, holder) : subject.release(holder));
      if (hold) held.get(volume)!.add(holder);
      else for (const holders of held.values()) holders.delete(holder);
      if (!hold) await Promise.all(under.splice(0));
      expect(new Set(mounter.on).size).toBe(mounter.on.length);
    }
    await Promise.all(under);
    under = [];
    for (const [volume, holders] of held) expect({volume, mounts: mounter.on.filter((at) => at === pathOf(volume)).length}).toEqual({volume, mounts: holders.size ? 1 : 0});
  }), {numRuns: 60});
});
