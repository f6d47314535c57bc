// Our cluster: three sitters, each with its Postgres, as `make cluster` has them.
import {spawn} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {connect, drop} from './clients.mjs';
import {endAll, freePorts, killAll, processesOf} from './processes.mjs';

const DIST = path.resolve(import.meta.dirname, '../../dist');
const PATH = '/bench/db';

export async function startManatee({dir, zookeeper, sessionMs}) {
  const {createCoordination} = await import(path.join(DIST, 'manatee/zookeeper/coordination.js'));
  const {createDiscovery} = await import(path.join(DIST, 'manatee/discover.js'));
  const {monotonic} = await import(path.join(DIST, 'manatee/monotonic.js'));
  const {silentLog} = await import(path.join(DIST, 'base/log.js'));
  const root = path.join(dir, 'manatee');
  fs.mkdirSync(root, {mode: 0o755});
  const passwordFiles = {client: path.join(root, 'client'), replication: path.join(root, 'replication')};
  for (const file of Object.values(passwordFiles)) fs.writeFileSync(file, 'bench\n', {mode: 0o600});
  const ports = await freePorts(6);
  const peers = [1, 2, 3].map((n) => ({id: `peer${n}`, dir: path.join(root, String(n)), port: ports[n - 1]}));
  const start = (peer) => {
    const log = fs.openSync(path.join(peer.dir, 'log'), 'a');
    spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, path.join(DIST, 'main/cetus.js'), 'sitter', '--config', path.join(peer.dir, 'sitter.json')], {stdio: ['ignore', log, log]});
    fs.closeSync(log);
  };
  for (const [n, peer] of peers.entries()) {
    fs.mkdirSync(peer.dir);
    fs.writeFileSync(path.join(peer.dir, 'sitter.json'), JSON.stringify({
      id: peer.id, host: '127.0.0.1', port: peer.port, statusListen: `127.0.0.1:${ports[n + 3]}`, dataDir: peer.dir,
      zookeeper: {servers: zookeeper.address, path: PATH, sessionTimeoutMs: sessionMs}, passwordFiles, oneNodeWriteMode: false, settings: {}, logLevel: 'info',
    }, null, 1));
    start(peer);
  }
  const at = {servers: zookeeper.address, path: PATH, clock: monotonic, log: silentLog()};
  const coordination = createCoordination({...at, sessionTimeoutMs: sessionMs});
  const discovery = createDiscovery(at);
  const url = (port) => `postgres://cetus:bench@127.0.0.1:${port}/cetus`;
  return {
    name: 'cetus', peers, urls: peers.map((peer) => url(peer.port)), zookeeper: {servers: zookeeper.address, path: PATH}, passwordFile: passwordFiles.client,
    /** As the store's clients do: what ZooKeeper last said. */
    discover: async () => [url((await discovery.primary()).port)],
    /** Everybody has a place and is ready to take over or to be followed, and the chain streams. */
    async healthy() {
      const {state, peers: live} = await coordination.view();
      if (!state?.sync || state.async.length !== 1 || state.deposed.length > 0 || live.length !== 3 || !live.every((peer) => peer.ready)) return false;
      const client = await connect(url(state.primary.port));
      try {
        return (await client.query('SELECT 1 FROM pg_stat_replication')).rows.length === 1;
      } finally { drop(client); }
    },
    postmasterOf: (peer) => Number(fs.readFileSync(path.join(peer.dir, 'data', 'postmaster.pid'), 'utf8').split('\n')[0]),
    machineOf: (peer) => processesOf(peer.dir),
    async revive(peer) {
      await endAll(peer.dir);
      start(peer);
    },
    async stop() {
      await discovery.close();
      await coordination.close();
      killAll(peers.flatMap((peer) => processesOf(peer.dir)));
      for (const peer of peers) await endAll(peer.dir);
    },
  };
}
