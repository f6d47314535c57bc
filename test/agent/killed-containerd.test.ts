/** What a containerd that was killed leaves in the way of the next call, as its own messages tell it. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {CetusError} from '../../lib/base/errors';
import type {ContainerdClient} from '../../lib/agent/containerd/connect';
import {prepareSnapshot} from '../../lib/agent/containerd/snapshots';
import {leftBundle, takeBundleAway} from '../../lib/agent/runtime/bundles';

const RENAME = 'failed to rename: rename /root/snapshots/new-3269264402 /root/snapshots/9: file exists';

function client(failures: string[]): {client: ContainerdClient; calls(): number} {
  let calls = 0;
  const prepare = async (): Promise<unknown> => {
    calls += 1;
    const message = failures.shift();
    if (message) throw new CetusError('internal', message);
    return {mounts: []};
  };
  return {client: {snapshots: {prepare}} as unknown as ContainerdClient, calls: () => calls};
}

test('a snapshot whose number is taken by a lost directory is asked for once more', async () => {
  const lost = client([RENAME]);
  expect(await prepareSnapshot(lost.client, {snapshotter: 'overlayfs', key: 'a', parent: ''})).toEqual({mounts: []});
  expect(lost.calls()).toBe(2);
  const hopeless = client([RENAME, RENAME]);
  await expect(prepareSnapshot(hopeless.client, {snapshotter: 'overlayfs', key: 'a', parent: ''})).rejects.toThrow('file exists');
  const other = client(['no space left on device']);
  await expect(prepareSnapshot(other.client, {snapshotter: 'overlayfs', key: 'a', parent: ''})).rejects.toThrow('no space');
  expect(other.calls()).toBe(1);
});

test('a bundle in the way is known by its name, and only by it', () => {
  const failed = (dir: string): CetusError => new CetusError('internal', `failed to start shim: mkdir ${dir}: file exists`);
  expect(leftBundle(failed('/state/task/cetus/abc'), 'abc')).toBe('/state/task/cetus/abc');
  expect(leftBundle(failed('/state/task/cetus/other'), 'abc')).toBeUndefined();
  expect(leftBundle(new CetusError('internal', 'failed to start shim: exec format error'), 'abc')).toBeUndefined();
});

test('a bundle is taken away with the shim that works in it', async () => {
  const bundle = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-bundle-'));
  fs.writeFileSync(path.join(bundle, 'address'), 'unix:///none');
  const shim = spawn('sleep', ['1000'], {cwd: bundle, stdio: 'ignore'});
  const ended = once(shim, 'exit');
  await once(shim, 'spawn');
  await takeBundleAway(bundle);
  expect(await ended).toEqual([null, 'SIGKILL']);
  expect(fs.existsSync(bundle)).toBe(false);
});
