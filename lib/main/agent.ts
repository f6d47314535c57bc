/** `cetus agent`: the process on a compute node, put together. It listens for the control plane and reports to it. */
import fs from 'node:fs';
import path from 'node:path';
import {createAgent} from '../agent/agent';
import {BuildEngines} from '../agent/build/engines';
import {connectContainerd} from '../agent/containerd/connect';
import {connectControlPlane} from '../agent/control-plane';
import {groupFencing} from '../agent/fencing/groups';
import {createAgentImages} from '../agent/images/agent-images';
import {mtuAt} from '../agent/network/interfaces';
import {createLinuxNetworking} from '../agent/network/linux';
import {createContainerdRuntime} from '../agent/runtime/containerd';
import {cgroupAbilities, createSpecBuilder} from '../agent/spec/builder';
import {KernelMeter} from '../agent/stats/meter';
import {currentOf} from '../base/credentials';
import {CetusError} from '../base/errors';
import {createLog, standardOutput} from '../base/log';
import {parseListen} from './address';
import {readAgentConfig} from './config';
import {failLoudly, live} from './lifetime';
import {initFacts, nodeFacts} from './node-facts';
import {readMutualTls} from './tls';

const INIT_PROGRAMS = ['docker-init', 'tini-static', 'tini'];

/** `join`: the token of a machine that may not be a node yet. */
export async function agent(configFile: string, join?: {token: string}): Promise<void> {
  const config = readAgentConfig(configFile);
  const listen = parseListen(config.listen);
  const log = createLog({name: 'agent', level: config.logLevel as never, stream: standardOutput()});
  failLoudly(log);
  const files = config.tls && readMutualTls(config.tls);
  if (listen.kind === 'unix' && join) throw new CetusError('invalid', `listen ${config.listen}: a node that joins is reached at an address, HOST:PORT`);
  // Plain TCP would hand root on the node to whoever can connect.
  const identity = listen.kind === 'tcp' && !files ? await (await import('./join.js')).nodeIdentity(config, join?.token, log) : undefined;
  const tls = identity?.credentials ?? files;
  for (const below of ['', 'state', 'network']) fs.mkdirSync(path.join(config.dataDir, below), {recursive: true, mode: 0o711});

  const containerd = connectContainerd({socket: config.containerdSocket, namespace: config.containerdNamespace, log});
  const runtime = createContainerdRuntime({client: containerd, stateDirectory: path.join(config.dataDir, 'state'), log});
  const underlay = config.underlay && {...config.underlay, mtu: await mtuAt(config.underlay.address)};
  const network = createLinuxNetworking({stateDir: path.join(config.dataDir, 'network'), prefix: config.prefix, ...(underlay ? {underlay} : {}), log});
  const images = createAgentImages({containerd, log, insecureRegistries: config.insecureRegistries, nodeId: () => config.nodeId, peerTls: () => tls && currentOf(tls)});
  const cgroupParent = `cetus-${config.prefix}`;
  const specs = createSpecBuilder({cgroupParent, cgroups: cgroupAbilities(), initPath: findInit()});
  const dockerd = findProgram(['dockerd']);
  const build = new BuildEngines({
    directory: path.join(config.dataDir, 'build'), cgroup: path.join(cgroupParent, 'build'), program: dockerd, init: findInit(), runc: findProgram(['runc']),
    insecureRegistries: config.insecureRegistries, lending: images.lending, network, log,
  });
  // A fleet with one list in its configuration spreads over the endpoints.
  const link = connectControlPlane(config.controlPlane, tls, Math.floor(Math.random() * 1000));
  const node = createAgent({
    // The runtime's versions are filled in when it has been opened.
    facts: nodeFacts(config, {version: '', runc: '', init: await initFacts(findInit()), snapshotter: '', builds: dockerd !== '' && findInit() !== ''}, underlay),
    runtime, network, images, specs, fencing: groupFencing({directory: path.join(config.dataDir, 'guard'), cgroupParent, log}), meter: new KernelMeter(cgroupParent), build,
    dataDir: config.dataDir, log, controlPlane: identity?.listening(link) ?? link, ...(config.bootId ? {bootId: config.bootId} : {}),
    ...(identity ? {admit: (peer) => identity.admit(peer)} : {}),
  });
  await node.open();
  await node.listen(listen.kind === 'unix' ? {socketPath: listen.path} : {host: listen.host, port: listen.port, tls: tls!});
  identity?.begin((request) => link.renew(request));
  live(log, async () => {
    await identity?.close();
    await node.close();
    await images.close();
    await containerd.close();
  });
}

const findInit = (): string => findProgram(INIT_PROGRAMS);

function findProgram(names: string[]): string {
  const dirs = [...(process.env.PATH ?? '').split(':'), '/usr/libexec/docker', '/usr/sbin', '/sbin'];
  return names.flatMap((name) => dirs.map((dir) => path.join(dir, name))).find((file) => fs.existsSync(file)) ?? '';
}
