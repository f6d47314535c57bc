/**
 * `cetus cluster --only-store`: the replicated store without Cetus on top, in the foreground. For moving a store into it, and for whoever runs
 * endpoints elsewhere. The rest of `cetus up` may run on the same directory meanwhile: they have a lock each.
 */
import path from 'node:path';
import {createLog, logFile} from '../../base/log';
import {failLoudly} from '../lifetime';
import {endFormer} from '../up/former';
import {lockDirectory} from '../up/instance';
import {makeDirectories, requireCluster, requireRoot} from '../up/preflight';
import {OwnCluster} from './cluster';

const STORE_TIMEOUT_MS = 120_000;

export async function onlyStore({data, peers, logLevel}: {data: string; peers: number; logLevel: string}): Promise<void> {
  requireRoot('cluster');
  const dir = path.resolve(data);
  makeDirectories(dir);
  const unlock = await lockDirectory(dir, 'store');
  const log = createLog({name: 'cluster', level: logLevel as never, stream: logFile(path.join(dir, 'log', 'cluster.log'))});
  failLoudly(log);
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  let cluster: OwnCluster | undefined;
  let ending = false;
  const end = async (): Promise<void> => {
    if (ending) return;
    ending = true;
    await cluster?.stop().catch((err: unknown) => log.error({err}, 'stop'));
    unlock();
    process.exit(0);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void end());
  try {
    await endFormer(dir, log, ['sitter']);
    cluster = await OwnCluster.open(dir, peers, logLevel, log);
    await cluster.startZooKeeper();
    say('  ZooKeeper is up');
    await cluster.startPeers(log);
    await requireCluster({store: cluster.store}, log, STORE_TIMEOUT_MS);
    say(`The replicated store is ready: \`cetus --data ${dir} db status\`. Ctrl-C ends it.`);
  } catch (err) {
    if (ending) return;
    log.error({err}, 'start');
    await cluster?.stop();
    unlock();
    throw err;
  }
}
