/**
 * A datacenter in memory, for tests of the edge. Its containers run no programs but small behaviours named by their command:
 * `echo WORDS`, `cat` (stdin to stdout), `sink` (counts stdin, prints the count), `flood BYTES`, `exit N`, `sleep` (until killed).
 */
import {Duplex, PassThrough, Readable} from 'node:stream';
import {ZERO_TIME, formatNs, systemClock} from '../../lib/base/clock';
import {CetusError} from '../../lib/base/errors';
import {systemIds} from '../../lib/base/ids';
import {findNode, selectNodes} from '../../lib/datacenter/nodes';
import type {Caller, Datacenter, ListedImage} from '../../lib/datacenter/verbs';
import type {Container} from '../../lib/schema/container';
import type {Config, CreateContainerBody, ExecConfig, ProgressMessage, RegistryAuth} from '../../lib/schema/docker';
import type {Node} from '../../lib/schema/node';
import type {DatacenterEvent, Exec, Image, Network, Volume} from '../../lib/schema/objects';

const IMAGE_ID = `sha256:${'ab'.repeat(32)}`;
export const NODE: Node = {
  id: 'n1', name: 'node1', availability: 'active', liveness: 'alive', livenessReason: '', livenessAt: ZERO_TIME, labels: {}, joinedAt: ZERO_TIME,
  facts: {
    nodeId: 'n1', name: 'node1', platform: 'linux/amd64', architecture: 'amd64', kernelVersion: '6.1.0', operatingSystem: 'Debian 12', osType: 'linux', cpus: 2,
    memoryBytes: 8e9, diskBytes: 1e11, pids: 10_000, cgroupVersion: 1, cgroupDriver: 'cgroupfs', containerdVersion: '1.6.20', runcVersion: '1.1.5', initBinary: 'tini', initVersion: '0.19.0', initCommit: '',
    snapshotter: 'overlayfs', rootDir: '/srv/cetus', agentUrl: 'unix:///agent', agentVersion: '0.1.0', labels: {}, bootGeneration: 1,
  },
};

export function fakeContainer(over: Partial<Container> = {}, body: CreateContainerBody = {}): Container {
  const id = over.id ?? systemIds.hex64();
  const name = over.name ?? `c${id.slice(0, 8)}`;
  const createdAtNs = String(systemClock.nowNs());
  const {HostConfig, NetworkingConfig: _networking, ...config} = body;
  return {
    id, account: 'default', name, accountName: `default/${name}`,
    spec: {
      id, account: 'default', name, image: {id: IMAGE_ID, reference: config.Image ?? 'busybox', manifestDigest: `sha256:${'cd'.repeat(32)}`},
      config, hostConfig: HostConfig ?? {}, logConfig: HostConfig?.LogConfig ?? {}, mounts: [], networkMode: 'networks', createdAt: formatNs(BigInt(createdAtNs)),
    },
    imageReference: config.Image ?? 'busybox', imageId: IMAGE_ID, node: 'node1', nodeId: 'n1', status: 'created',
    observation: {containerId: id, generation: 1, status: 'created', pid: 0, exitCode: 0, error: '', oomKilled: false, startedAt: ZERO_TIME, finishedAt: ZERO_TIME, restartCount: 0},
    autoRemove: HostConfig?.AutoRemove ?? false, labels: (config.Labels ?? {}) as Record<string, string>,
    networks: {bridge: {networkId: 'ee'.repeat(32), settings: {}}}, attachments: [], requestedPorts: [], publishedPorts: [], volumeIds: [], anonymousVolumeIds: [],
    reservation: {memoryBytes: 0, nanoCpus: 0, diskBytes: 0, pids: 0}, provisionJobId: '', placement: null, createdAt: formatNs(BigInt(createdAtNs)), createdAtNs,
    ...over,
  };
}

export function frame(stream: 1 | 2, bytes: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(bytes.length, 4);
  return Buffer.concat([head, bytes]);
}

/** A duplex whose two halves are given apart; ending the writable side leaves the readable one open. */
function behaviour(command: string[], tty: boolean, exited: (code: number) => void): {stdin: PassThrough; output: PassThrough; run(): void} {
  const stdin = new PassThrough();
  const output = new PassThrough();
  const say = (bytes: Buffer): boolean => output.write(tty ? bytes : frame(1, bytes));
  const end = (code: number): void => {
    output.end();
    exited(code);
  };
  const run = (): void => {
    const [program, ...args] = command;
    switch (program) {
      case 'echo':
        say(Buffer.from(`${args.join(' ')}\n`));
        return end(0);
      case 'exit':
        return end(Number(args[0]));
      case 'cat':
        stdin.on('data', (chunk: Buffer) => { if (!say(chunk)) stdin.pause(); });
        output.on('drain', () => stdin.resume());
        stdin.on('end', () => end(0));
        return;
      case 'sink': {
        let count = 0;
        stdin.on('data', (chunk: Buffer) => { count += chunk.length; });
        stdin.on('end', () => {
          say(Buffer.from(`${count}\n`));
          end(0);
        });
        return;
      }
      case 'flood': {
        let left = Number(args[0]);
        const chunk = Buffer.alloc(64 * 1024, 'x');
        const pump = (): void => {
          while (left > 0) {
            const some = chunk.subarray(0, Math.min(left, chunk.length));
            left -= some.length;
            if (!say(some)) return void output.once('drain', pump);
          }
          end(0);
        };
        return pump();
      }
      default:
        // sleeps until it is killed
    }
  };
  return {stdin, output, run};
}

type Process = ReturnType<typeof behaviour>;
interface Held { container: Container; process: Process; exits: ((code: number) => void)[]; gone: (() => void)[] }

const noSuch = (what: string, id: string): CetusError => new CetusError('notFound', `No such ${what}: ${id}`);

export class FakeDatacenter {
  readonly held = new Map<string, Held>();
  readonly images: ListedImage[] = [fakeImage(['docker.io/library/busybox:latest'])];
  readonly networks: Network[] = [fakeNetwork('bridge')];
  readonly volumes: Volume[] = [];
  readonly nodes: Node[] = [NODE];
  readonly events: DatacenterEvent[] = [];
  readonly execs = new Map<string, {exec: Exec; process: Process}>();
  /** What verbs were called with, newest last. */
  readonly calls: {verb: string; args: unknown[]}[] = [];
  lastCaller: Caller | undefined;
  lastAuth: RegistryAuth | undefined;
  /** Aborted signals of streams, so that tests see that a departure arrived. */
  departures = 0;
  /** Whether a node could build, and what its engine keeps. */
  builds = false;
  buildCache: unknown[] = [];
  eventsRead = 0;
  /** What streams of requests ended with. */
  readonly failures: Error[] = [];

  add(container: Container): Held {
    const held: Held = {container, exits: [], gone: [], process: behaviour(argvOf(container.spec.config), container.spec.config.Tty ?? false, (code) => this.exit(held, code))};
    this.held.set(container.id, held);
    return held;
  }

  find(nameOrId: string): Held {
    for (const held of this.held.values())
      if (held.container.id.startsWith(nameOrId) || held.container.name === nameOrId) return held;
    throw noSuch('container', nameOrId);
  }

  private exit(held: Held, code: number): void {
    const {container} = held;
    container.status = 'exited';
    container.observation = {...container.observation, status: 'exited', exitCode: code, pid: 0, finishedAt: formatNs(systemClock.nowNs())};
    held.exits.splice(0).forEach((resolve) => resolve(code));
    if (container.autoRemove) this.drop(held);
  }

  private drop(held: Held): void {
    this.held.delete(held.container.id);
    held.gone.splice(0).forEach((resolve) => resolve());
  }

  start(held: Held): void {
    if (held.container.status === 'running') throw new CetusError('notModified', 'already started');
    held.container.status = 'running';
    held.container.observation = {...held.container.observation, status: 'running', pid: 42, startedAt: formatNs(systemClock.nowNs())};
    // After the answer: the CLI must have seen its wait armed and its attach joined.
    setImmediate(() => held.process.run());
  }

  private called(verb: string, caller: Caller, ...args: unknown[]): void {
    this.lastCaller = caller;
    this.calls.push({verb, args});
  }

  private async* eventLines(bounded: boolean, caller: Caller): AsyncIterable<DatacenterEvent> {
    try {
      for (const event of this.events) {
        this.eventsRead += 1;
        yield event;
      }
      if (!bounded) await new Promise<void>((resolve) => caller.signal?.addEventListener('abort', () => resolve(), {once: true}));
    } finally {
      if (!bounded) this.departures += 1;
    }
  }

  datacenter(): Datacenter {
    const later = (name: string) => (): never => { throw new CetusError('notImplemented', `${name} is not implemented`); };
    return {
      builds: {
        open: async () => { throw new CetusError('unavailable', 'no node builds'); },
        build: (caller, query) => {
          this.called('build', caller, query.toString());
          throw new CetusError('unavailable', 'no node builds');
        },
        cancel: async (caller, id) => this.called('build.cancel', caller, id),
        prune: async (caller, query) => {
          this.called('build.prune', caller, query.toString());
          return {CachesDeleted: null, SpaceReclaimed: 0};
        },
        usage: async () => ({BuildCache: this.buildCache, BuilderSize: 0}),
        available: async () => this.builds,
      },
      containers: {
        create: async (caller, name, body, platform) => {
          this.called('create', caller, name, body, ...(platform ? [platform] : []));
          if (name && [...this.held.values()].some((h) => h.container.name === name)) throw new CetusError('conflict', `Conflict. The container name "/${name}" is already in use`);
          const container = fakeContainer(name ? {name} : {}, body);
          this.add(container);
          return {id: container.id, warnings: []};
        },
        linkNames: async () => new Map(),
        list: async (caller, query) => {
          this.called('list', caller, query);
          return [...this.held.values()].map((h) => h.container).filter((c) => query.all || c.status === 'running');
        },
        get: async (_caller, id) => this.find(id).container,
        size: async () => ({sizeRw: 10, sizeRootFs: 20}),
        start: async (caller, id) => {
          this.called('start', caller, id);
          this.start(this.find(id));
        },
        stop: async (caller, id, options) => {
          this.called('stop', caller, id, options);
          const held = this.find(id);
          if (held.container.status !== 'running') throw new CetusError('notModified', 'already stopped');
          held.process.output.end();
          this.exit(held, 143);
        },
        restart: async (caller, id, options) => this.called('restart', caller, id, options),
        kill: async (caller, id, signal) => {
          this.called('kill', caller, id, signal);
          const held = this.find(id);
          if (held.container.status !== 'running') throw new CetusError('conflict', `cannot kill container: ${id}: container ${held.container.id} is not running`);
          held.process.output.end();
          this.exit(held, 137);
        },
        pause: async (caller, id) => this.called('pause', caller, id),
        unpause: async (caller, id) => this.called('unpause', caller, id),
        rename: async (caller, id, name) => {
          this.called('rename', caller, id, name);
          this.find(id).container.name = name;
        },
        update: async (caller, id, resources, policy) => {
          this.called('update', caller, id, resources, policy);
          return {warnings: []};
        },
        remove: async (caller, id, options) => {
          this.called('remove', caller, id, options);
          this.drop(this.find(id));
        },
        prune: async (caller, filters) => {
          this.called('prune', caller, filters);
          return {deleted: [], spaceReclaimed: 0};
        },
        wait: async (caller, id, condition) => {
          this.called('wait', caller, id, condition);
          const held = this.find(id);
          const outcome = new Promise<{exitCode: number}>((resolve, reject) => {
            const done = (): void => resolve({exitCode: held.container.observation.exitCode});
            if (condition === 'not-running' && held.container.status !== 'running') return done();
            if (condition === 'removed') held.gone.push(done);
            else held.exits.push(done);
            caller.signal?.addEventListener('abort', () => {
              this.departures += 1;
              reject(caller.signal!.reason as Error);
            });
            return undefined;
          });
          outcome.catch(() => undefined);
          return {outcome};
        },
        attach: async (caller, id, query) => {
          this.called('attach', caller, id, query);
          const {process, container} = this.find(id);
          const stdin = query.stdin ? process.stdin : new PassThrough().resume();
          return {stream: Duplex.from({readable: process.output, writable: stdin}), tty: container.spec.config.Tty ?? false};
        },
        logs: async (caller, id, query) => {
          this.called('logs', caller, id, query);
          const {container} = this.find(id);
          const stream = query.follow ? new PassThrough() : Readable.from([frame(1, Buffer.from('line 1\n')), frame(2, Buffer.from('line 2\n'))]);
          if (query.follow) (stream as PassThrough).write(frame(1, Buffer.from('first\n')));
          stream.once('close', () => { this.departures += 1; });
          return {stream, tty: container.spec.config.Tty ?? false};
        },
        top: async (caller, id, psArgs) => {
          this.called('top', caller, id, psArgs);
          return {Titles: ['PID', 'CMD'], Processes: [['1', 'sh']]};
        },
        stats: async (caller, id, query) => {
          this.find(id);
          this.called('stats', caller, id, query);
          return Readable.from(['{"read":"x","limit":9223372036854771712}\n{"re', 'ad":"y"}\n']);
        },
        resize: async (caller, id, height, width) => this.called('resize', caller, id, height, width),
        changes: later('docker diff'), export: later('docker export'), statPath: later('docker cp'), getArchive: later('docker cp'),
        putArchive: async (caller, id, query, body) => {
          let bytes = 0;
          for await (const chunk of body) bytes += (chunk as Buffer).length;
          this.called('putArchive', caller, id, query, bytes);
        },
      },
      execs: {
        create: async (caller, id, config) => {
          this.called('exec.create', caller, id, config);
          const {container} = this.find(id);
          const exec: Exec = {id: systemIds.hex64(), account: 'default', containerId: container.id, nodeId: 'n1', config, running: false, exitCode: null, pid: 0, createdAt: container.createdAt};
          this.execs.set(exec.id, {exec, process: behaviour((config as ExecConfig).Cmd ?? [], config.Tty ?? false, (code) => Object.assign(exec, {running: false, exitCode: code}))});
          return {id: exec.id};
        },
        start: async (caller, id, query) => {
          this.called('exec.start', caller, id, query);
          const found = this.execs.get(id);
          if (!found) throw noSuch('exec instance', id);
          if (found.exec.config.Cmd?.[0] === 'missing') {
            found.exec.exitCode = 127;
            throw new CetusError('invalid', 'OCI runtime exec failed: exec: "missing": executable file not found in $PATH: unknown');
          }
          found.exec.running = true;
          setImmediate(() => found.process.run());
          return {stream: query.detach ? null : Duplex.from({readable: found.process.output, writable: found.process.stdin}), tty: found.exec.config.Tty ?? false};
        },
        get: async (_caller, id) => {
          const found = this.execs.get(id);
          if (!found) throw noSuch('exec instance', id);
          return {exec: found.exec, live: undefined};
        },
        resize: async (caller, id, height, width) => this.called('exec.resize', caller, id, height, width),
        open: async (_caller, c) => [...this.execs.values()].filter(({exec}) => exec.containerId === c.id && exec.exitCode === null).map(({exec}) => exec.id),
      },
      images: {
        list: async (caller, query) => {
          this.called('image.list', caller, query);
          return this.images;
        },
        get: async (_caller, name) => {
          const found = this.images.find((i) => i.image.id.includes(name) || i.references.some((r) => r === name || r.endsWith(`/${name}`) || r.endsWith(`/${name}:latest`)));
          if (!found) throw noSuch('image', name);
          return found;
        },
        history: async (caller, name, options) => ({...await this.datacenter().images.get(caller, name, options), ancestors: []}),
        pull: (caller, reference, options, auth) => {
          this.called('pull', caller, reference, options);
          this.lastAuth = auth;
          return pullLines(reference);
        },
        load: (caller, archive, options) => {
          this.called('load', caller, options);
          return loadLines(archive, this.failures);
        },
        save: async (caller, names, options) => {
          this.called('save', caller, names, ...(options?.platform ? [options] : []));
          return Readable.from([Buffer.from('tar')]);
        },
        push: (caller, name, tag, options, auth) => {
          this.called('push', caller, name, tag, options);
          this.lastAuth = auth;
          return (async function* lines() { yield {status: `The push refers to repository [${name}]`}; })();
        },
        import: (caller, source, options) => {
          this.called('import', caller, typeof source === 'string' ? source : 'body', options);
          if (typeof source !== 'string') source.resume();
          return (async function* lines() { yield {status: IMAGE_ID}; })();
        },
        login: async (caller, auth) => {
          this.called('login', caller, auth.serveraddress);
          this.lastAuth = auth;
          if (auth.password === 'wrong') throw new CetusError('unauthorized', 'login attempt to http://r/v2/ failed with status: 401 Unauthorized');
          return {identityToken: ''};
        },
        search: async (caller, term, options) => {
          this.called('search', caller, term, options);
          return [{name: 'found', description: 'a find', isOfficial: true, stars: 3}];
        },
        inspectRemote: async (caller, name) => {
          this.called('inspectRemote', caller, name);
          return {descriptor: {mediaType: 'm', digest: IMAGE_ID, size: 1}, platforms: [{os: 'linux', architecture: 'amd64'}]};
        },
        commit: async (caller, container, options) => {
          this.called('commit', caller, container, options);
          return {imageId: IMAGE_ID};
        },
        tag: async (caller, source, repository, tag) => this.called('tag', caller, source, repository, tag),
        remove: async (caller, name, options) => {
          this.called('image.remove', caller, name, options);
          return [{Untagged: name}, {Deleted: IMAGE_ID}];
        },
        prune: async (caller, filters) => {
          this.called('image.prune', caller, filters);
          return {deleted: [], spaceReclaimed: 0};
        },
      },
      networks: {
        create: async (caller, body) => {
          this.called('network.create', caller, body);
          const network = fakeNetwork(body.Name);
          this.networks.push(network);
          return {id: network.id, warning: ''};
        },
        list: async (caller, filters) => {
          this.called('network.list', caller, filters);
          return this.networks;
        },
        get: async (_caller, name) => {
          const found = this.networks.find((n) => n.name === name || n.id === name);
          if (!found) throw new CetusError('notFound', `network ${name} not found`);
          return found;
        },
        containers: async () => [...this.held.values()].map((h) => h.container),
        remove: async (caller, name) => this.called('network.remove', caller, name),
        connect: async (caller, ...args) => this.called('connect', caller, ...args),
        disconnect: async (caller, ...args) => this.called('disconnect', caller, ...args),
        prune: async (caller, filters) => {
          this.called('network.prune', caller, filters);
          return {deleted: []};
        },
      },
      volumes: {
        create: async (caller, body) => {
          this.called('volume.create', caller, body);
          const volume = fakeVolume(body.Name ?? 'anonymous');
          this.volumes.push(volume);
          return volume;
        },
        list: async (caller, filters) => {
          this.called('volume.list', caller, filters);
          return {volumes: this.volumes, warnings: []};
        },
        get: async (_caller, name) => {
          const found = this.volumes.find((v) => v.name === name);
          if (!found) throw new CetusError('notFound', `get ${name}: no such volume`);
          return found;
        },
        remove: async (caller, name, force) => this.called('volume.remove', caller, name, force),
        prune: async (caller, filters) => {
          this.called('volume.prune', caller, filters);
          return {deleted: [], spaceReclaimed: 0};
        },
      },
      events: {
        stream: async (caller, query) => {
          this.called('events', caller, query);
          return this.eventLines(query.untilNs !== undefined, caller);
        },
        emit: () => undefined,
      },
      system: {
        info: async () => ({
          id: 'dc', name: 'galaxy', nodes: this.nodes, containers: {running: 0, paused: 0, stopped: this.held.size, total: this.held.size}, images: this.images.length,
          totalMemoryBytes: 8e9, totalCpus: 2, postgresVersion: '18.4',
        }),
        diskUsage: async () => ({
          images: this.images, containers: [...this.held.values()].map(({container}) => ({container, sizeRw: 1})),
          volumes: this.volumes.map((volume) => ({volume, size: 1, refCount: 0})), layersSize: 1,
        }),
        ping: async () => undefined,
      },
      publications: {follow: later('publications.follow'), addressOf: later('publications.addressOf'), dial: later('publications.dial'), announce: later('publications.announce')},
      nodes: {
        list: async (caller, filters) => {
          this.called('node.list', caller, filters);
          return selectNodes(this.nodes, filters);
        },
        get: async (_caller, idOrName) => findNode(this.nodes, idOrName),
      },
      operator: {} as Datacenter['operator'],
    };
  }
}

const argvOf = (config: Config): string[] => [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];

export function fakeImage(references: string[], over: Partial<Image> = {}): ListedImage {
  const descriptor = {mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: `sha256:${'cd'.repeat(32)}`, size: 500};
  return {
    references, containers: 0,
    image: {
      id: IMAGE_ID, account: 'default', manifestDigest: descriptor.digest, manifestMediaType: descriptor.mediaType, manifest: descriptor,
      repoDigests: [`docker.io/library/busybox@${descriptor.digest}`],
      config: {
        created: '2024-01-02T03:04:05Z', architecture: 'amd64', os: 'linux', config: {Env: ['PATH=/bin'], Cmd: ['sh']}, rootfs: {type: 'layers', diff_ids: [`sha256:${'ef'.repeat(32)}`]},
        history: [{created: '2024-01-02T03:04:05Z', created_by: 'ADD rootfs'}, {created: '2024-01-02T03:04:05Z', created_by: 'CMD ["sh"]', empty_layer: true}],
      },
      layers: [{digest: `sha256:${'01'.repeat(32)}`, mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', size: 1000, diffId: `sha256:${'ef'.repeat(32)}`, unpackedSize: 4000}],
      size: 4000, nodes: ['n1'], createdAt: '2024-01-02T03:04:05Z', addedAt: '2024-01-02T03:04:05Z', lastTaggedAt: '2024-01-02T03:04:05Z', ...over,
    },
  };
}

export function fakeNetwork(name: string): Network {
  return {
    id: systemIds.hex64(), account: 'default', name, accountName: `default/${name}`, driver: 'bridge', scope: 'local', internal: false, attachable: false, ingress: false,
    enableIPv4: true, enableIPv6: false, subnet: '172.18.0.0/16', gateway: '172.18.0.1', ipRange: '', auxAddresses: {}, options: {}, ipamOptions: {}, labels: {},
    bridgeName: 'br0', predefined: name === 'bridge', createdAt: '2024-01-02T03:04:05Z',
  };
}

export function fakeVolume(name: string): Volume {
  return {
    id: systemIds.hex64(), account: 'default', name, accountName: `default/${name}`, driver: 'local', options: {}, labels: {}, anonymous: false, nodeId: 'n1',
    mountpoint: `/volumes/${name}`, createdAt: '2024-01-02T03:04:05Z',
  };
}

async function* pullLines(reference: string): AsyncIterable<ProgressMessage> {
  if (reference.startsWith('locked')) throw new CetusError('unauthorized', 'unauthorized: incorrect username or password');
  if (reference.startsWith('missing')) throw new CetusError('notFound', 'manifest unknown');
  yield {status: 'Pulling from library/busybox', id: 'latest'};
  if (reference.startsWith('broken')) throw new CetusError('unavailable', 'the registry went away');
  yield {status: `Status: Downloaded newer image for ${reference}`};
}

async function* loadLines(archive: Readable, failures: Error[]): AsyncIterable<ProgressMessage> {
  let bytes = 0;
  try {
    for await (const chunk of archive) {
      bytes += (chunk as Buffer).length;
      if ((chunk as Buffer).includes('not a tar')) throw new CetusError('invalid', 'not a tar archive');
    }
  } catch (err) {
    failures.push(err as Error);
    throw err;
  }
  yield {stream: `Loaded ${bytes} bytes\n`};
}
