/**
 * One dockerd in a world of its own, as a child of the agent. Its mounts are in a mount namespace and its processes in a pid namespace that end
 * with it, so that ending one process, in whatever way, takes containerd, shims, whatever a build runs, and all mounts along; and the kernel
 * ends that one process when the agent dies. What is left on the machine is files below its directory, and empty control groups.
 */
import {spawn, type ChildProcess} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import {systemClock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {EngineApi} from './engine-api';
import {placeRunc} from './step-network';

export interface EngineSettings {
  /** Everything of it lies here. */
  directory: string;
  /** A bridge that exists, has the gateway's address and leads outwards; the engine makes no rules of its own. */
  bridge: string;
  /** Control group of all that builds run, below each hierarchy's root. */
  cgroup: string;
  insecureRegistries: readonly string[];
  /** Whether a build may use the node's own network. */
  hostNetwork: boolean;
  /** The network namespace of steps, and who answers names in it. */
  netns: string;
  nameservers: readonly string[];
  runc: string;
  /** The first process of the namespace: dockerd reaps its own children only, and a shim leaves its parent at once. */
  init: string;
}

const NO_SYNC = path.join(__dirname, 'no-sync.js');
const START_MS = 30_000;
const POLL_MS = 10;
const GRACE_MS = 3_000;
const KILL_MS = 5_000;
const MAX_LOG_BYTES = 4 * 1024 * 1024;
const MAX_DEPTH = 100;

export class EngineProcess {
  readonly api: EngineApi;
  /** Resolves when it has ended. */
  readonly ended: Promise<void>;
  private over = false;

  private constructor(private readonly child: ChildProcess, socket: string, private readonly log: Log) {
    this.api = new EngineApi(socket);
    this.ended = new Promise((resolve) => {
      const done = (): void => {
        this.over = true;
        resolve();
      };
      child.once('exit', done).once('error', done);
    });
  }

  get running(): boolean {
    return !this.over;
  }

  static async start(program: string, settings: EngineSettings, log: Log): Promise<EngineProcess> {
    const {directory} = settings;
    const at = places(directory);
    fs.rmSync(at.exec, {recursive: true, force: true});
    for (const dir of [at.data, at.exec, at.etc]) fs.mkdirSync(dir, {recursive: true, mode: 0o711});
    for (const file of [at.socket, at.pid]) fs.rmSync(file, {force: true});
    fs.writeFileSync(at.config, JSON.stringify({builder: {gc: {enabled: true}}}));
    fs.writeFileSync(at.netns, '');
    placeRunc(at.bin, {runc: settings.runc, netns: at.netns, nodeNetns: path.join(at.exec, 'netns', 'default'), nodeNetworkAllowed: settings.hostNetwork});
    const [command, ...args] = commandLine(program, settings);
    const child = spawn(process.execPath, [NO_SYNC, command!, ...args], {stdio: ['ignore', 'pipe', 'pipe'], cwd: '/', env: {...process.env, PATH: `${at.bin}:${process.env.PATH}:/usr/sbin:/sbin`, HOME: directory}});
    const file = new EngineLog(at.log);
    for (const output of [child.stdout!, child.stderr!]) output.on('data', (text: Buffer) => file.write(text));
    const engine = new EngineProcess(child, at.socket, log);
    try {
      await engine.ready();
    } catch (err) {
      await engine.end(0);
      throw err;
    }
    return engine;
  }

  /** Orderly within the grace, then at once. Nothing of it runs or is mounted afterwards. */
  async end(graceMs = GRACE_MS): Promise<void> {
    if (this.over) return;
    const inner = graceMs > 0 ? this.innerPid() : undefined;
    if (inner !== undefined) {
      try {
        process.kill(inner, 'SIGTERM');
      } catch { /* it ends by itself */ }
      await Promise.race([this.ended, systemClock.sleep(graceMs)]);
    }
    if (!this.over) this.child.kill('SIGKILL');
    await Promise.race([this.ended, systemClock.sleep(KILL_MS)]);
    if (!this.over) this.log.error({pid: this.child.pid}, 'a build engine does not end');
  }

  private async ready(): Promise<void> {
    const until = Date.now() + START_MS;
    for (;;) {
      if (this.over) throw new CetusError('unavailable', 'the build engine ended while it started; its log says why', {shown: 'the build engine cannot be started'});
      try {
        const answer = await this.api.send({method: 'GET', path: '/_ping', signal: AbortSignal.timeout(1_000)});
        answer.resume();
        if (answer.statusCode === 200) return;
      } catch { /* not there yet */ }
      if (Date.now() > until) throw new CetusError('timeout', `the build engine was not ready within ${START_MS / 1000} s`, {shown: 'the build engine cannot be started'});
      await systemClock.sleep(POLL_MS);
    }
  }

  /** unshare's child is the first process of the namespace, and hands signals on. */
  private innerPid(): number | undefined {
    const {pid} = this.child;
    const children = pid === undefined ? '' : fs.readFileSync(`/proc/${pid}/task/${pid}/children`, {encoding: 'utf8', flag: 'r'});
    const [first] = children.trim().split(' ').filter(Boolean).map(Number);
    return first;
  }
}

/** What it says, in two files of a bounded size: shims say several lines a step, whatever they are told. A disk that takes none loses them. */
class EngineLog {
  private bytes: number;

  constructor(private readonly file: string) {
    this.bytes = fs.statSync(file, {throwIfNoEntry: false})?.size ?? 0;
  }

  write(text: Buffer): void {
    try {
      if (this.bytes > MAX_LOG_BYTES) {
        fs.renameSync(this.file, `${this.file}.1`);
        this.bytes = 0;
      }
      fs.appendFileSync(this.file, text, {mode: 0o600});
      this.bytes += text.length;
    } catch { /* the engine goes on */ }
  }
}

export function places(directory: string): Record<'data' | 'exec' | 'etc' | 'bin' | 'netns' | 'socket' | 'pid' | 'config' | 'log', string> {
  const at = (name: string): string => path.join(directory, name);
  return {data: at('data'), exec: at('x'), etc: at('etc'), bin: at('bin'), netns: at('netns'), socket: at('e.sock'), pid: at('pid'), config: at('engine.json'), log: at('engine.log')};
}

/**
 * What the namespace begins with. Mounts of containers and network namespaces that were there when it was made would otherwise be held by it for
 * as long as it lasts; shims put sockets below /run/containerd, plugins of the node's own Docker lie below /run/docker, and its configuration and
 * key in /etc/docker: all of these are hidden, but the certificates of registries.
 */
const PRELUDE = `set -e
needed=$1; etc=$2; netns=$3; shift 3
mount --bind "$netns" "$needed/netns"
awk '{ for (i = 7; $i != "-"; i++); print $5, $(i + 1) }' /proc/self/mountinfo | sort -r | while read -r at type; do
  case "$needed/" in "$at"/*) continue;; esac
  case "$at" in "$needed"/*) continue;; esac
  case "$type" in nsfs|overlay|mqueue) [ "$at" = / ] || umount -l "$at" 2>/dev/null || true;; tmpfs) case "$at" in /dev/*) ;; */shm) umount -l "$at" 2>/dev/null || true;; esac;; esac
done
for at in /run/containerd /run/docker; do [ ! -d "$at" ] || mount -t tmpfs -o mode=0711 tmpfs "$at"; done
mkdir -p /etc/docker
if [ -d /etc/docker/certs.d ]; then mkdir -p "$etc/certs.d"; mount --bind /etc/docker/certs.d "$etc/certs.d"; fi
mount --rbind "$etc" /etc/docker
exec "$@"`;

function commandLine(program: string, {directory, bridge, cgroup, init, insecureRegistries, netns, nameservers}: EngineSettings): string[] {
  const at = places(directory);
  return [
    'setpriv', '--pdeathsig', 'KILL', 'unshare', '--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc', '--propagation', 'private',
    'sh', '-c', PRELUDE, 'prelude', directory, at.etc, netns, init, '--', program,
    '--config-file', at.config, '--data-root', at.data, '--exec-root', at.exec, '--pidfile', at.pid, '--host', `unix://${at.socket}`,
    '--bridge', bridge, '--iptables=false', '--ip6tables=false', '--ip-forward=false', '--ip-masq=false', '--userland-proxy=false',
    '--storage-driver', 'overlay2', '--cgroup-parent', cgroup, '--exec-opt', 'native.cgroupdriver=cgroupfs', '--log-level', 'warn',
    ...mtu(bridge), ...nameservers.flatMap((server) => ['--dns', server]), ...insecureRegistries.flatMap((registry) => ['--insecure-registry', registry]),
  ];
}

function mtu(bridge: string): string[] {
  try {
    return ['--mtu', fs.readFileSync(`/sys/class/net/${bridge}/mtu`, 'utf8').trim()];
  } catch {
    return [];
  }
}

/** Control groups that a killed engine's builds left behind. */
export function sweepCgroups(cgroup: string): void {
  const root = '/sys/fs/cgroup';
  const remove = (dir: string, depth: number): void => {
    if (depth > MAX_DEPTH || !fs.statSync(dir, {throwIfNoEntry: false})?.isDirectory()) return;
    for (const below of fs.readdirSync(dir, {withFileTypes: true})) if (below.isDirectory()) remove(path.join(dir, below.name), depth + 1);
    try {
      fs.rmdirSync(dir);
    } catch { /* busy for a moment more; the next sweep takes it */ }
  };
  for (const hierarchy of [root, ...fs.readdirSync(root).map((name) => path.join(root, name))]) remove(path.join(hierarchy, cgroup), 0);
}
