/** `cetus endpoint`: answers Docker clients and operators, listens to agents, and runs jobs. */
import fs from 'node:fs';
import {collectDefaultMetrics, Registry} from 'prom-client';
import {createAdminServer} from '../admin/server';
import {systemClock} from '../base/clock';
import {createLog, standardOutput} from '../base/log';
import {createDockerServer, type DockerServer} from '../docker/server';
import {Ingress} from '../ingress/ingress';
import {formatListen, type ListenAddress, parseListen, requireSafe} from './address';
import {readEndpointConfig} from './config';
import {endpointName, startControlPlane} from './control-plane';
import {measureIngress} from './ingress-metrics';
import {failLoudly, live} from './lifetime';
import {readTls} from './tls';
import {VERSION} from './version';

export async function endpoint(configFile: string): Promise<void> {
  const config = readEndpointConfig(configFile);
  const listen = config.listen.map(parseListen);
  for (const address of listen) requireSafe(address, config.tls !== undefined);
  const adminListen = config.adminListen.map(parseListen);
  for (const address of adminListen) requireSafe(address, false);

  const log = createLog({name: 'endpoint', level: config.logLevel as never, stream: standardOutput()});
  failLoudly(log);
  const plane = await startControlPlane(config, log);

  const ingress = new Ingress({publications: plane.datacenter.publications, log, clock: systemClock, endpoint: endpointName(config), datacenterId: config.id});
  await ingress.start();

  const metrics = new Registry();
  collectDefaultMetrics({register: metrics});
  measureIngress(ingress, metrics);
  const admin = createAdminServer({datacenter: plane.datacenter, log, metrics});
  for (const address of adminListen) await listenOn(address, (at) => admin.listen(at), 0o600);

  const tls = config.tls && readTls(config.tls);
  const shown = {version: VERSION, insecureRegistries: config.insecureRegistries ?? []};
  // For containers that have /var/run/docker.sock: their nodes bring the connections.
  const forContainers = createDockerServer({datacenter: plane.datacenter, log, config: shown});
  plane.fleet.onDocker((socket, account) => forContainers.adopt(socket, account));
  const docker: DockerServer[] = [forContainers];
  const addresses: string[] = [];
  for (const address of listen) {
    const server = createDockerServer({datacenter: plane.datacenter, log, config: shown, ...(tls && address.kind === 'tcp' ? {tls} : {})});
    docker.push(server);
    addresses.push(formatListen(await listenOn(address, (at) => server.listen(at), 0o660)));
  }

  live(log, async () => {
    await Promise.all([...docker.map((server) => server.close()), admin.close(), ingress.stop()]);
    await plane.stop();
  }, {listen: addresses});
}

type At = {host: string; port: number} | {path: string};

/** A socket file that a killed process left behind would be in the way; whatever else lies there stays. `cetus up` has asked whether somebody answers. */
async function listenOn(address: ListenAddress, listen: (at: At) => Promise<At>, mode: number): Promise<ListenAddress> {
  if (address.kind === 'unix' && fs.lstatSync(address.path, {throwIfNoEntry: false})?.isSocket()) fs.rmSync(address.path);
  const at = await listen(address.kind === 'unix' ? {path: address.path} : {host: address.host, port: address.port});
  if ('path' in at) {
    fs.chmodSync(at.path, mode);
    return {kind: 'unix', path: at.path};
  }
  return {kind: 'tcp', ...at};
}
