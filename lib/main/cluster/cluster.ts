/**
 * A replicated store on this one machine, for `cetus cluster`: three ZooKeeper servers, and peers (a Postgres and its sitter) each in a directory of its own.
 * Whatever dies is started again. On one machine this protects from the death of a process and of a directory, not from the machine's.
 *
 * The end is in an order in which nothing has to fail over: the asyncs first, then the sync, then the primary, ZooKeeper last.
 */
import path from 'node:path';
import type {Log} from '../../base/log';
import {monotonic} from '../../manatee/monotonic';
import {askStatus} from '../../manatee/status';
import {SupervisedChild} from '../up/child';
import {HOST, loadLayout, storeOfLayout, writeSitterConfig, zooCfg, zookeeperDir, type ClusterLayout, type PeerLayout} from './layout';
import {requireZooKeeper, untilQuorum, ZooKeeperServer} from './zookeeper';
import type {ClusterStore} from '../config';

export interface ClusterPart { name: string; pid(): number | undefined; stop(): Promise<void> }

const QUORUM_TIMEOUT_MS = 60_000;
const SITTER_READY_MS = 60_000;
const LOOK_SESSION_MS = 6000;
const LOOK_MS = 100;
const HEAD_START_MS = 10_000;
/** More than a sitter gives itself for an orderly end. */
const SITTER_STOP_MS = 25_000;

export class OwnCluster {
  private readonly zookeepers: ZooKeeperServer[];
  private readonly sitters: {peer: PeerLayout; child: SupervisedChild}[];
  private ended: Promise<void> | undefined;

  private constructor(private readonly dir: string, private readonly layout: ClusterLayout, logLevel: string, log: Log) {
    const logs = path.join(dir, 'log');
    this.zookeepers = layout.zookeepers.map((own) => new ZooKeeperServer({
      id: own.id, dir: zookeeperDir(dir, own.id), host: HOST, port: own.clientPort, config: zooCfg(dir, layout, own), logFile: path.join(logs, `zookeeper-${own.id}.log`), log,
    }));
    this.sitters = layout.peers.map((peer) => ({peer, child: new SupervisedChild({
      name: `sitter ${peer.id}`, log, readyTimeoutMs: SITTER_READY_MS, stopTimeoutMs: SITTER_STOP_MS, logFile: path.join(logs, `sitter-${peer.id}.log`),
      args: [path.resolve(__dirname, '..', 'cetus.js'), 'sitter', '--config', writeSitterConfig(dir, layout, peer, logLevel)],
    })}));
  }

  static async open(dir: string, peers: number, logLevel: string, log: Log): Promise<OwnCluster> {
    requireZooKeeper();
    return new OwnCluster(dir, await loadLayout(dir, peers), logLevel, log);
  }

  get store(): ClusterStore {
    return storeOfLayout(this.dir, this.layout);
  }

  get parts(): ClusterPart[] {
    const stop = (): Promise<void> => this.stop();
    return [
      ...this.zookeepers.map((server, n) => ({name: `zookeeper-${n + 1}`, pid: () => server.pid, stop})),
      ...this.sitters.map(({peer, child}) => ({name: `sitter-${peer.id}`, pid: () => child.pid, stop})),
    ];
  }

  async startZooKeeper(): Promise<void> {
    for (const server of this.zookeepers) server.start();
    await untilQuorum(this.zookeepers, QUORUM_TIMEOUT_MS);
  }

  /**
   * The primary first, then its sync: a sync that finds nobody in the primary's place takes over, and a primary that finds an async before its sync takes that
   * one; after an orderly end both are for nothing. Who does not come is not waited for long.
   */
  async startPeers(log: Log): Promise<void> {
    const {createCoordination} = await import('../../manatee/zookeeper/coordination.js');
    const coordination = createCoordination({...this.layout.zookeeper, sessionTimeoutMs: LOOK_SESSION_MS, clock: monotonic, log});
    try {
      await coordination.ready(QUORUM_TIMEOUT_MS);
      const {state} = await coordination.view();
      const ahead = [state?.primary.id, state?.sync?.id].flatMap((id) => this.sitters.filter(({peer}) => peer.id === id));
      for (const {peer, child} of ahead) {
        await child.start();
        for (const until = Date.now() + HEAD_START_MS; Date.now() < until;) {
          if ((await coordination.view()).peers.some(({id, ready}) => id === peer.id && ready)) break;
          await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
        }
      }
      await Promise.all(this.sitters.filter((sitter) => !ahead.includes(sitter)).map(({child}) => child.start()));
    } finally {
      await coordination.close();
    }
  }

  /** Once, whoever asks. */
  stop(): Promise<void> {
    this.ended ??= this.end();
    return this.ended;
  }

  private async end(): Promise<void> {
    const rank = await this.ranks();
    for (const {child} of [...this.sitters].sort((a, b) => rank(a.peer) - rank(b.peer))) await child.stop();
    await Promise.all(this.zookeepers.map((server) => server.stop()));
  }

  /** By what they do now: a primary is out of recovery, a sync is whom the primary waits for. */
  private async ranks(): Promise<(peer: PeerLayout) => number> {
    const documents = await Promise.all(this.sitters.map(({peer}) =>
      askStatus({id: peer.id, host: HOST, port: peer.port, statusUrl: `http://${HOST}:${peer.statusPort}/`}).catch(() => undefined)));
    const primary = documents.find((document) => document?.facts?.gate === 'open');
    const rule = primary?.facts?.acknowledger;
    return ({id}) => (id === primary?.peer.id ? 2 : rule?.kind === 'peer' && rule.id === id ? 1 : 0);
  }
}
