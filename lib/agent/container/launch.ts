/**
 * From a record to a running process: network sandbox, OCI spec, the three /etc files and the volumes side by side, then the runtime's
 * two calls. The snapshot is made, and the OCI spec built where it depends on nothing of the start, behind create's answer; only the
 * namespace's path is filled in.
 */
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {CetusError} from '../../base/errors';
import type {ContainerSpec, ResolvedLink} from '../../schema/container';
import type {ContainerLog} from '../logs/log';
import {linkEnvironment, withEnvironment} from '../spec/links';
import {DEFAULT_SHM_BYTES} from '../spec/mounts';
import type {OciSpec, SnapshotMount} from '../runtime/runtime';
import type {StdioHub} from '../stdio/hub';
import type {StoredSpec} from '../store';
import type {MountSources} from '../volumes/volumes';
import {hostnameOf, hostsFile, resolvConf} from './files';
import type {NodeParts} from './node-parts';
import type {Launch} from './record';
import {mountShm, sharesIpc} from './shm';

/** `release` once the runtime has made its own mounts, or will not. */
interface Built { oci: OciSpec; release(): Promise<void> }

export class Launcher {
  private built: Promise<Built> | undefined;
  /** The container's snapshot; undefined where this life of the agent has not seen it yet, or where making it failed. */
  private root: Promise<void> | undefined;

  /** `mayStart` throws where it may not, at the last moment at which that can be said. */
  constructor(private readonly parts: NodeParts, private readonly stored: () => StoredSpec, private readonly mayStart: () => void = () => undefined) {}

  /** Makes the snapshot and builds the OCI spec ahead. A failure is kept to itself: the start tries again and says why. */
  prepare(): void {
    this.snapshot().catch(() => undefined);
    if (this.dependsOnOthers()) return;
    this.built = this.build();
    this.built.catch(() => (this.built = undefined));
  }

  /** The container's writable layer, made by now. */
  async rootMounts(): Promise<SnapshotMount[]> {
    await this.snapshot();
    return await this.parts.runtime.mounts(this.stored().spec.id);
  }

  /** Nothing is being made any more. Never rejects. */
  async settled(): Promise<void> {
    await Promise.allSettled([this.root, this.built]);
  }

  forget(): void {
    this.built = undefined;
  }

  async launch(launch: Launch, hub: StdioHub, log: ContainerLog | undefined): Promise<number> {
    const {runtime} = this.parts;
    const {spec} = this.stored();
    const built = this.built ?? this.build(launch.links);
    // Used once: sources of binds are looked at anew by the next start.
    this.built = undefined;
    try {
      const [netnsPath, {oci}] = await Promise.all([this.sandbox(launch), built, this.writeFiles(launch), this.snapshot()]);
      const io = {stdin: spec.config.OpenStdin === true, terminal: spec.config.Tty === true};
      const task = await runtime.createTask(spec.id, withNetns(oci, netnsPath), io);
      // Before the start: the first byte has a reader.
      hub.connect(task.io, log);
      // The process is there, but not let go: were the lease to end from here on, whoever ends it would find the process.
      this.mayStart();
      await runtime.startTask(spec.id);
      return task.pid;
    } finally {
      // Where the build failed it has said so already, and holds nothing.
      await (await built.catch(() => undefined))?.release();
    }
  }

  /** Its networks change while it runs. */
  async writeNames({attachments, links}: Launch): Promise<void> {
    const {spec} = this.stored();
    if (spec.networkMode !== 'networks' && spec.networkMode !== 'none') return;
    this.parts.store.saveMounted(spec.id, 'hosts', hostsFile(spec, hostnameOf(spec, this.parts.nodeName), attachments, links));
    this.parts.store.saveMounted(spec.id, 'resolv.conf', resolvConf(spec, await this.parts.network.resolvConf(attachments)));
  }

  private snapshot(): Promise<void> {
    if (this.root) return this.root;
    const root = this.makeSnapshot();
    this.root = root;
    root.catch(() => {
      if (this.root === root) this.root = undefined;
    });
    return root;
  }

  private async makeSnapshot(): Promise<void> {
    const {runtime, images, log} = this.parts;
    const {spec, parentSnapshot} = this.stored();
    const create = (parent: string): Promise<void> => runtime.create({id: spec.id, parentSnapshot: parent, labels: {'cetus.account': spec.account}});
    await create(parentSnapshot).catch(async (err: unknown) => {
      // The image's layers may be gone from the snapshotter, which create did not look at.
      log.warn({err, containerId: spec.id}, 'a snapshot could not be made; its image is unpacked again');
      await create((await images.prepare(spec.image.id, spec.image.manifestDigest)).parentSnapshot);
    });
  }

  private async sandbox(launch: Launch): Promise<string> {
    const {network} = this.parts;
    const {spec} = this.stored();
    const containerId = spec.id;
    const joined = containerIn(spec.networkMode);
    if (joined !== undefined) {
      const pid = await this.parts.pidOf(joined).catch((err: unknown) => {
        throw new CetusError('conflict', `cannot join network of a non running container: ${joined}`, {cause: err});
      });
      return `/proc/${pid}/ns/net`;
    }
    switch (spec.networkMode) {
      case 'host': return '';
      default: {
        if (launch.attachments.length === 0) return (await network.createEmptySandbox(containerId)).netnsPath;
        const hostname = hostnameOf(spec, this.parts.nodeName);
        return (await network.createSandbox({containerId, containerName: spec.name, hostname, networks: launch.networks, attachments: launch.attachments, ports: launch.ports, dns: spec.hostConfig.Dns ?? []})).netnsPath;
      }
    }
  }

  private async build(links?: readonly ResolvedLink[]): Promise<Built> {
    const sources = await this.parts.volumes.sources(this.stored().spec);
    try {
      return {oci: await this.specOver(sources.mounts, links), release: () => sources.release()};
    } catch (err) {
      await sources.release();
      throw err;
    }
  }

  private async specOver(mounts: MountSources['mounts'], links?: readonly ResolvedLink[]): Promise<OciSpec> {
    const {parts} = this;
    const {image} = this.stored();
    const spec = linkedSpec(this.stored().spec, links);
    // A joined container's own files are shown, so that its names and servers hold for both.
    const filesDir = parts.store.dir(containerIn(spec.networkMode) ?? spec.id);
    return await parts.specs.container({
      spec, image, mounts, shm: await this.shm(), hostname: hostnameOf(spec, parts.nodeName), netnsPath: '',
      files: {hosts: join(filesDir, 'hosts'), hostname: join(filesDir, 'hostname'), resolvConf: join(filesDir, 'resolv.conf')},
      rootMounts: () => this.rootMounts(),
      pidOf: (id) => parts.pidOf(id),
    });
  }

  private async shm(): Promise<string> {
    const {parts} = this;
    const {id, hostConfig} = this.stored().spec;
    if (sharesIpc(hostConfig)) await mountShm(parts.store.shmPath(id), hostConfig.ShmSize || DEFAULT_SHM_BYTES);
    return sharesIpc(hostConfig) || hostConfig.IpcMode === 'host' || hostConfig.IpcMode?.startsWith('container:') ? parts.shmOf(id) : '';
  }

  private async writeFiles(launch: Launch): Promise<void> {
    const {store, network, nodeName} = this.parts;
    const {spec} = this.stored();
    if (containerIn(spec.networkMode) !== undefined) return;
    const hostname = hostnameOf(spec, nodeName);
    store.saveMounted(spec.id, 'hostname', `${hostname}\n`);
    if (spec.networkMode === 'host') {
      store.saveMounted(spec.id, 'hosts', readOwn('/etc/hosts') + hostsFile(spec, hostname, []).split('allrouters\n')[1]!);
      store.saveMounted(spec.id, 'resolv.conf', spec.hostConfig.Dns?.length ? resolvConf(spec, {nameservers: [], search: [], options: []}) : readOwn('/etc/resolv.conf'));
      return;
    }
    store.saveMounted(spec.id, 'hosts', hostsFile(spec, hostname, launch.attachments, launch.links));
    store.saveMounted(spec.id, 'resolv.conf', resolvConf(spec, await network.resolvConf(launch.attachments)));
  }

  /** Namespaces of other containers are known only when both run; a shared /dev/shm is mounted by the start, and what containers can rewrite is looked up by it. */
  private dependsOnOthers(): boolean {
    const {hostConfig, networkMode, mounts} = this.stored().spec;
    return sharesIpc(hostConfig) || Boolean(hostConfig.Links?.length) || mounts.some((mount) => this.parts.volumes.isLate(mount)) || [networkMode, hostConfig.PidMode, hostConfig.IpcMode].some((mode) => mode?.startsWith('container:'));
  }
}

/** With the variables that tell of linked containers; execs have them too. */
export function linkedSpec(spec: ContainerSpec, links: readonly ResolvedLink[] | undefined): ContainerSpec {
  if (!links?.length) return spec;
  return {...spec, config: {...spec.config, Env: withEnvironment(spec.config.Env ?? [], linkEnvironment(spec.name, links))}};
}

function containerIn(mode: string): string | undefined {
  return mode.startsWith('container:') ? mode.slice('container:'.length) : undefined;
}

function readOwn(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw err;
  }
}

/** The spec with the sandbox's path in its network namespace; '' leaves it as built (the node's own). */
function withNetns(oci: OciSpec, netnsPath: string): OciSpec {
  if (!netnsPath) return oci;
  const linux = (oci.linux ?? {}) as {namespaces?: {type: string; path?: string}[]};
  const namespaces = (linux.namespaces ?? []).filter((n) => n.type !== 'network');
  return {...oci, linux: {...linux, namespaces: [...namespaces, {type: 'network', path: netnsPath}]}};
}
