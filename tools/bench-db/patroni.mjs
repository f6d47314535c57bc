// Patroni, from the distribution, as its experts would set it up for a quick failover that loses nothing: see README.md for the why of each line.
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import {execFileSync} from 'node:child_process';
import {asPostgres, BIN, endAll, freePorts, killAll, processesOf} from './processes.mjs';
import {SETTINGS} from './settings.mjs';

const LOOP_S = 1;

export async function startPatroni({dir, zookeeper, sessionMs}) {
  const ports = await freePorts(6);
  const root = path.join(dir, 'patroni');
  const peers = [1, 2, 3].map((n) => ({id: `patroni${n}`, dir: path.join(root, String(n)), port: ports[n - 1], rest: ports[n + 2]}));
  const retryS = Math.max(1, Math.floor((sessionMs / 1000 - LOOP_S) / 2));
  for (const peer of peers) {
    fs.mkdirSync(peer.dir, {recursive: true});
    fs.writeFileSync(path.join(peer.dir, 'patroni.json'), JSON.stringify(configuration({peer, zookeeper, sessionMs, retryS}), null, 1));
  }
  execFileSync('chown', ['-R', 'postgres:postgres', root]);
  const start = (peer) => {
    peer.process = asPostgres('/usr/bin/patroni', [path.join(peer.dir, 'patroni.json')], {log: path.join(peer.dir, 'log'), cwd: peer.dir});
  };
  for (const peer of peers) start(peer);
  const urls = peers.map((peer) => `postgres://postgres@127.0.0.1:${peer.port}/postgres`);
  return {
    name: 'patroni', peers, urls,
    /** As libpq does with a list of hosts: no look into ZooKeeper is quicker than asking the three. */
    discover: async () => urls,
    /** What all three say, or why it is not healthy. */
    async healthy() {
      const {members} = await cluster(peers);
      return members.length === 3 && members.filter((m) => m.role === 'leader').length === 1 && members.filter((m) => m.role === 'sync_standby').length === 1
        && members.every((m) => m.state === 'running' || m.state === 'streaming') && new Set(members.map((m) => m.timeline)).size === 1;
    },
    postmasterOf: (peer) => Number(fs.readFileSync(path.join(peer.dir, 'data', 'postmaster.pid'), 'utf8').split('\n')[0]),
    machineOf: (peer) => processesOf(peer.dir),
    async revive(peer) {
      await endAll(peer.dir);
      start(peer);
    },
    async stop() {
      killAll(peers.flatMap((peer) => processesOf(peer.dir)));
      for (const peer of peers) await endAll(peer.dir);
    },
  };
}

function configuration({peer, zookeeper, sessionMs, retryS}) {
  const local = `127.0.0.1:${peer.port}`;
  return {
    scope: 'bench', namespace: '/patroni/', name: peer.id,
    log: {level: 'INFO'},
    zookeeper: {hosts: zookeeper.address.split(',')},
    watchdog: {mode: 'off'},
    restapi: {listen: `127.0.0.1:${peer.rest}`, connect_address: `127.0.0.1:${peer.rest}`},
    bootstrap: {
      dcs: {
        ttl: sessionMs / 1000, loop_wait: LOOP_S, retry_timeout: retryS, maximum_lag_on_failover: 1_048_576,
        primary_start_timeout: 0, synchronous_mode: true, synchronous_mode_strict: true, synchronous_node_count: 1, failsafe_mode: true,
        postgresql: {use_pg_rewind: true, use_slots: false, parameters: SETTINGS},
      },
      initdb: [{encoding: 'UTF8'}, {locale: 'C'}, 'data-checksums'],
    },
    postgresql: {
      listen: local, connect_address: local, bin_dir: BIN, data_dir: path.join(peer.dir, 'data'), pgpass: path.join(peer.dir, 'pgpass'),
      authentication: {superuser: {username: 'postgres'}, replication: {username: 'postgres'}, rewind: {username: 'postgres'}},
      parameters: {unix_socket_directories: peer.dir},
      pg_hba: ['local all all trust', 'host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'],
      use_unix_socket: true, remove_data_directory_on_rewind_failure: true, remove_data_directory_on_diverged_timelines: true,
    },
  };
}

async function cluster(peers) {
  let last;
  for (const peer of peers) {
    try { return await get(peer.rest, '/cluster'); } catch (err) { last = err; }
  }
  throw last;
}

const get = (port, address) => new Promise((resolve, reject) => {
  const request = http.get({host: '127.0.0.1', port, path: address, timeout: 2000, agent: false}, (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (part) => { text += part; }).on('end', () => { try { resolve(JSON.parse(text)); } catch (err) { reject(err); } });
  });
  request.on('timeout', () => request.destroy(new Error(`no answer on ${port}`))).on('error', reject);
});
