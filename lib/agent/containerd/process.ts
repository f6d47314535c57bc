/**
 * A containerd of our own under one directory (its own root, state and socket), for machines where Cetus may not or need not use the
 * system's. Promise: it outlives the process that started it, as do its shims and containers; whoever comes next adopts it by its
 * socket, and starts it again where it has died. Called by main and by tests.
 *
 * Under a service manager that kills a unit's whole process group (systemd without KillMode=process) nothing outlives us.
 */
import {spawn} from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';
import {alive} from '../../base/alive';
import {systemClock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {answers} from './answers';

export interface ContainerdProcessOptions {
  /** root/, state/, containerd.sock, config.toml and log go here. */
  directory: string;
  log: Log;
  /** Default: `containerd` from PATH. */
  binary?: string;
  /** The network namespace in which it and its shims live, as /run/netns/NAME; default: ours. */
  namespace?: string;
  /** Until it must answer; one that ends instead is not waited for. Default 120 s: it answers no sooner than each shim has answered it. */
  startTimeoutMs?: number;
  /** For the kernel's out-of-memory killer; default -999, as the distribution's unit has it. */
  oomScore?: number;
  /** Start it again when it dies while we run. Default true. */
  supervise?: boolean;
}

export interface ContainerdProcess {
  readonly socket: string;
  readonly directory: string;
  pid(): number;
  /** False where this call found one already serving. */
  readonly started: boolean;
  /** Ends supervision; containerd, shims and containers go on. */
  release(): void;
  /** Ends containerd; running containers go on under their shims. */
  stop(): Promise<void>;
}

// Plugins nobody here uses: they cost start-up time, warnings, and open listeners. (The old io.containerd.runtime.v1.linux is unused too,
// but without it containerd 1.6 serves no tasks at all.)
const UNUSED_PLUGINS = ['io.containerd.grpc.v1.cri', 'io.containerd.snapshotter.v1.aufs', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.zfs', 'io.containerd.internal.v1.opt', 'io.containerd.internal.v1.restart', 'io.containerd.internal.v1.tracing',
  'io.containerd.tracing.processor.v1.otlp'];

// sockaddr_un holds 107 bytes and a terminator; containerd makes a second socket with this suffix.
const SOCKET_PATH_MAX = 107 - '.ttrpc'.length;
/**
 * How long containerd waits for a shim to say a word; the time-outs of its own are 5, 5, 3 and 2 s, which a shim can miss where machine and disk
 * are everybody's. A shim that is late when containerd starts is taken for dead: what it keeps is killed, and where that is late as well the bundle
 * stays behind. One that is late to tell its state makes that UNKNOWN. Longer than our calls' deadlines, so that late is an error and no answer.
 */
const SHIM_PATIENCE = {'shim.load': '60s', 'shim.cleanup': '60s', 'shim.shutdown': '30s', 'task.state': '30s'};
const LOG_KEEP_BYTES = 16 << 20;
const POLL_MS = 10;
const START_TIMEOUT_MS = 120_000;
const ANSWER_MS = 1_000;
const SUPERVISE_MS = 100;
const STOP_TIMEOUT_MS = 10_000;

export async function startContainerd(options: ContainerdProcessOptions): Promise<ContainerdProcess> {
  const directory = path.resolve(options.directory);
  const socket = path.join(directory, 'containerd.sock');
  if (Buffer.byteLength(socket) > SOCKET_PATH_MAX)
    throw new CetusError('invalid', `the directory's path is too long for a unix socket (${SOCKET_PATH_MAX - '/containerd.sock'.length} bytes at most): ${directory}`);
  await fs.mkdir(directory, {recursive: true, mode: 0o711});

  let {pid, started} = await ensure(options, directory, socket);
  let released = false;
  let restarting: Promise<unknown> | undefined;
  const timer = options.supervise === false ? undefined : setInterval(() => {
    if (released || restarting || alive(pid)) return;
    options.log.warn({pid}, 'containerd has died; starting it again');
    restarting = ensure(options, directory, socket)
      .then(now => { pid = now.pid; }, (err: unknown) => options.log.error({err}, 'containerd does not start'))
      .finally(() => { restarting = undefined; });
  }, SUPERVISE_MS);
  timer?.unref();

  const release = (): void => {
    released = true;
    clearInterval(timer);
  };
  return {
    socket,
    directory,
    started,
    pid: () => pid,
    release,
    stop: async () => {
      release();
      await restarting;
      await end(pid);
    },
  };
}

async function ensure(options: ContainerdProcessOptions, directory: string, socket: string): Promise<{pid: number; started: boolean}> {
  const pidFile = path.join(directory, 'containerd.pid');
  const known = Number(await fs.readFile(pidFile, 'utf8').catch(() => '0'));
  const timeoutMs = options.startTimeoutMs ?? START_TIMEOUT_MS;
  // One that ends before it has answered was on its way out (a killed process keeps its command line for a moment): not adopted, followed.
  if (known > 0 && await isOurs(known, directory) && await serving(options.log, socket, timeoutMs, known)) return {pid: known, started: false};
  await fs.writeFile(path.join(directory, 'config.toml'), config(directory, socket, options.oomScore ?? -999), {mode: 0o600});
  const logFile = path.join(directory, 'containerd.log');
  const size = await fs.stat(logFile).then(stat => stat.size, () => 0);
  if (size > LOG_KEEP_BYTES) await fs.rename(logFile, `${logFile}.1`);
  const log = await fs.open(logFile, 'a', 0o600);
  try {
    // Detached: a session of its own, so that neither our terminal's Ctrl-C nor our death reaches it.
    // nsenter becomes containerd: the process id is its own.
    const [program, ...words] = [...(options.namespace ? ['nsenter', `--net=${options.namespace}`] : []), options.binary ?? 'containerd', '--config', path.join(directory, 'config.toml')];
    const child = spawn(program!, words, {detached: true, stdio: ['ignore', log.fd, log.fd], cwd: directory});
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', err => reject(new CetusError('unavailable', `containerd cannot be started: ${err.message}`, {cause: err})));
    });
    child.unref();
    const pid = child.pid!;
    await fs.writeFile(pidFile, String(pid));
    if (!await serving(options.log, socket, timeoutMs, pid)) throw new CetusError('unavailable', `containerd ended at once; its log is beside its socket, ${socket}`);
    options.log.info({pid, socket}, 'containerd serves');
    return {pid, started: true};
  } finally {
    await log.close();
  }
}

/** Once it answers to a call, not merely accepts: its plugins are up. False where the process ends first. */
async function serving(log: Log, socket: string, timeoutMs: number, pid: number): Promise<boolean> {
  const until = systemClock.now() + timeoutMs;
  for (;;) {
    if (await fs.access(socket).then(() => true, () => false)) {
      try {
        await answers(socket, ANSWER_MS);
        return true;
      } catch (err) {
        log.debug({err}, 'containerd does not answer yet');
      }
    }
    if (!alive(pid)) return false;
    if (systemClock.now() > until) throw new CetusError('unavailable', `containerd did not answer within ${timeoutMs} ms; its log is beside its socket, ${socket}`);
    await systemClock.sleep(POLL_MS);
  }
}

function config(directory: string, socket: string, oomScore: number): string {
  const quote = (value: string): string => JSON.stringify(value);
  return `version = 2
root = ${quote(path.join(directory, 'root'))}
state = ${quote(path.join(directory, 'state'))}
oom_score = ${oomScore}
disabled_plugins = [${UNUSED_PLUGINS.map(quote).join(', ')}]

[grpc]
  address = ${quote(socket)}

[debug]
  level = "warn"

[timeouts]
${Object.entries(SHIM_PATIENCE).map(([name, patience]) => `  "io.containerd.timeout.${name}" = ${quote(patience)}`).join('\n')}
`;
}

/** A pid may have been taken over by a stranger since it was written down: the command line tells. */
async function isOurs(pid: number, directory: string): Promise<boolean> {
  const line = await fs.readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return line.split('\0').includes(path.join(directory, 'config.toml'));
}

async function end(pid: number): Promise<void> {
  const until = systemClock.now() + STOP_TIMEOUT_MS;
  signal(pid, 'SIGTERM');
  while (alive(pid)) {
    if (systemClock.now() > until) signal(pid, 'SIGKILL');
    await systemClock.sleep(POLL_MS);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code !== 'ESRCH') throw err;
  }
}
