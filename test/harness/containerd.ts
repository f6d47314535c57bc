/** A containerd for one test file: own directory, own processes, nothing left behind. */
import {execFileSync} from 'node:child_process';
import {readFileSync, readdirSync, rmdirSync} from 'node:fs';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {connectContainerd, type ContainerdClient} from '../../lib/agent/containerd/connect';
import {startContainerd, type ContainerdProcess} from '../../lib/agent/containerd/process';
import {silentLog} from '../../lib/base/log';

export interface TestContainerd {
  directory: string;
  process: ContainerdProcess;
  client: ContainerdClient;
  /** Kills every task and container of the namespace, ends containerd, and removes the directory. */
  stop(): Promise<void>;
}

export async function testContainerd(namespace = 'cetus-test'): Promise<TestContainerd> {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'cetus-ctrd-'));
  const process = await startContainerd({directory, log: silentLog(), supervise: false});
  const client = connectContainerd({socket: process.socket, namespace, log: silentLog()});
  await client.namespaces.create({namespace: {name: namespace}}).catch(() => undefined);
  const world: TestContainerd = {
    directory,
    process,
    client,
    stop: async () => {
      try {
        await removeTasks(client);
      } finally {
        client.close();
        await world.process.stop();
        unmountBelow(directory);
        removeCgroups();
        await fs.rm(directory, {recursive: true, force: true, maxRetries: 5});
      }
    },
  };
  return world;
}

async function removeTasks(client: ContainerdClient): Promise<void> {
  const {tasks} = await client.tasks.list({});
  await Promise.all(tasks.map(async ({id}) => {
    await client.tasks.kill({containerId: id, signal: 9, all: true}).catch(() => undefined);
    await client.tasks.wait({containerId: id}, {deadlineMs: 10_000}).catch(() => undefined);
    await client.tasks.delete({containerId: id}).catch(() => undefined);
  }));
}

/** The parents that the tests' specs name; still in use by another test file, they stay for that one to remove. */
function removeCgroups(): void {
  const root = '/sys/fs/cgroup';
  for (const hierarchy of ['', ...readdirSync(root)]) {
    for (const parent of ['cetus-test', 'cetus-spec-test']) {
      try {
        rmdirSync(path.join(root, hierarchy, parent));
      } catch {
        continue;
      }
    }
  }
}

function unmountBelow(directory: string): void {
  const mounted = readFileSync('/proc/self/mountinfo', 'utf8').split('\n').map(line => line.split(' ')[4] ?? '').filter(point => point.startsWith(`${directory}/`));
  for (const point of mounted.reverse()) execFileSync('umount', ['-l', point]);
}
