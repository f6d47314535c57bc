/**
 * `cetus db import`: what the embedded Postgres of a data directory holds goes into a cluster. The two are of different versions of Postgres, so rows are copied
 * (moray/copy.ts), all or nothing; the directory's own store stays as it is. Cetus must not run on it: its lock is held meanwhile.
 */
import fs from 'node:fs';
import path from 'node:path';
import {CetusError} from '../base/errors';
import {silentLog} from '../base/log';
import {copyStore, type Copied} from '../moray/copy';
import {markImported, readLayout} from './cluster/layout';
import type {ClusterStore} from './config';
import {startPostgres} from './postgres';
import {storeOf} from './store';
import {lockDirectory} from './up/instance';
import {requireRoot} from './up/preflight';

export async function importStore(fromData: string, target: ClusterStore, tell: (text: string) => void): Promise<Copied> {
  requireRoot('db import');
  const dir = path.resolve(fromData);
  if (!fs.existsSync(path.join(dir, 'postgres', 'PG_VERSION'))) throw new CetusError('notFound', `${dir} has no store of its own (postgres/)`);
  const log = silentLog();
  const unlock = await lockDirectory(dir);
  const store = await storeOf({store: target}, log);
  try {
    const postgres = await startPostgres({dataDir: path.join(dir, 'postgres'), socketDir: path.join(dir, 'run'), log});
    try {
      const copied = await copyStore({from: postgres.url, to: store.url, log, tell});
      // From now on this directory's store is the cluster beside it.
      if (readLayout(dir)?.zookeeper.servers === target.zookeeper.servers) markImported(dir);
      return copied;
    } finally {
      await postgres.stop();
    }
  } finally {
    await store.close();
    unlock();
  }
}
