/** `cetus sitter`: one beside each Postgres of a replicated store. Wiring: ZooKeeper, Postgres, the sitter between them, and its status for `cetus db`. */
import {mkdirSync} from 'node:fs';
import path from 'node:path';
import {systemClock} from '../base/clock';
import {createLog, standardOutput} from '../base/log';
import {monotonic as clock} from '../manatee/monotonic';
import {readOverrides} from '../manatee/overrides';
import {SITTER} from '../manatee/postgres/conf';
import {createPostgresServer} from '../manatee/postgres/server';
import {Sitter} from '../manatee/sitter';
import type {Peer} from '../manatee/state';
import {serveStatus} from '../manatee/status';
import {createCoordination} from '../manatee/zookeeper/coordination';
import {parseListen, reachableHost} from './address';
import {readSitterConfig} from './config';
import {failLoudly, live} from './lifetime';
import {lockFile} from './up/instance';

/** An orderly end of Postgres, everything sent to its standbys, takes seconds where they are slow. */
const STOP_TIMEOUT_MS = 20_000;
const DEFAULT_GRACE_MS = 300;

export async function sitter(configFile: string): Promise<void> {
  const config = readSitterConfig(configFile);
  // Before anything else: a sitter ends the Postgres that it finds running, for a leftover, and that must not be a living sitter's. Held until the process ends.
  mkdirSync(config.dataDir, {recursive: true, mode: 0o755});
  await lockFile(path.join(config.dataDir, 'sitter.lock'), `another cetus sitter runs on ${config.dataDir}; end it first, or give this one an id, a dataDir and ports of its own`);
  const log = createLog({name: `sitter ${config.id}`, level: config.logLevel as never, stream: standardOutput()});
  failLoudly(log);
  const at = parseListen(config.statusListen);
  if (at.kind !== 'tcp') throw new Error(`statusListen ${config.statusListen}: HOST:PORT is wanted, which other machines can reach`);
  const self: Peer = {id: config.id, host: config.host, port: config.port, statusUrl: `http://${reachableHost(at.host, config.host)}:${at.port}/`};
  const socketDir = config.socketDir ?? path.join(config.dataDir, 'socket');

  const server = await createPostgresServer({
    self, dataDir: config.dataDir, socketDir, listenHost: config.listenHost ?? config.host, passwordFiles: config.passwordFiles, clock, log, settings: config.settings,
    ...(config.binDir === undefined ? {} : {binDir: config.binDir}),
  });
  const coordination = createCoordination({...config.zookeeper, id: config.id, clock, log});
  const sitting = new Sitter({
    self, policy: {oneNodeWriteMode: config.oneNodeWriteMode, restartGraceMs: config.restartGraceMs ?? DEFAULT_GRACE_MS}, coordination, server, clock,
    wallClock: () => new Date(systemClock.now()).toISOString(), sessionTimeoutMs: config.zookeeper.sessionTimeoutMs, log,
  });
  const status = await serveStatus({
    status: () => sitting.status(), nowMs: () => clock.nowMs(), overrides: () => readOverrides({host: socketDir, port: config.port, user: SITTER}),
  }, at);
  sitting.start();

  live(log, async () => {
    await sitting.retire();
    await status.close();
  }, {id: self.id, status: self.statusUrl}, STOP_TIMEOUT_MS);
}
