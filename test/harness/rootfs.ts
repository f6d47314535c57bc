/** A busybox root filesystem as a committed snapshot, made without a registry: the tests' smallest image. */
import {execFileSync} from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';
import type {ContainerdClient} from '../../lib/agent/containerd/connect';

export const BUSYBOX = '/bin/busybox';

const PASSWD = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
alice:x:1000:1000:Alice:/home/alice:/bin/sh
`;
const GROUP = `root:x:0:
daemon:x:1:
audio:x:29:alice
staff:x:50:alice,daemon
alice:x:1000:
`;

/** Fills a directory as the root of a busybox system. */
export async function fillBusyboxRoot(root: string): Promise<void> {
  for (const directory of ['bin', 'dev', 'etc', 'home/alice', 'proc', 'root', 'sys', 'tmp', 'usr/bin', 'usr/sbin', 'var/run', 'run'])
    await fs.mkdir(path.join(root, directory), {recursive: true});
  await fs.chmod(path.join(root, 'tmp'), 0o1777);
  await fs.chown(path.join(root, 'home/alice'), 1000, 1000);
  await fs.copyFile(BUSYBOX, path.join(root, 'bin/busybox'));
  const applets = execFileSync(BUSYBOX, ['--list'], {encoding: 'utf8'}).split('\n').filter(name => name && name !== 'busybox');
  for (const applet of applets) await fs.link(path.join(root, 'bin/busybox'), path.join(root, 'bin', applet));
  await fs.writeFile(path.join(root, 'etc/passwd'), PASSWD);
  await fs.writeFile(path.join(root, 'etc/group'), GROUP);
}

/** Commits the busybox root under `name` (once) and roots it against the garbage collector. Returns the name. */
export async function busyboxSnapshot(client: ContainerdClient, name = 'busybox'): Promise<string> {
  const snapshotter = 'overlayfs';
  const known = await client.snapshots.stat({snapshotter, key: name}).then(() => true, () => false);
  if (known) return name;
  await client.leases.create({id: `make-${name}`});
  const leased = client.withLease(`make-${name}`);
  try {
    // Without a parent, the mount is a bind of the layer's own directory: it can be filled without mounting anything.
    const {mounts} = await leased.snapshots.prepare({snapshotter, key: `make-${name}`, parent: ''});
    await fillBusyboxRoot(mounts[0]!.source);
    await leased.snapshots.commit({snapshotter, key: `make-${name}`, name, labels: {'containerd.io/gc.root': new Date().toISOString()}});
  } finally {
    await client.leases.delete({id: `make-${name}`});
  }
  return name;
}
