/**
 * Ends the server when we cannot: a process of its own (bash, because it is on every machine and waits with its builtins alone) that hears from us
 * through a pipe. It fires when the pipe closes, however we died, or when a moment passes that we were to move on, though we be stopped or starved.
 *
 * Moments are those of /proc/uptime, which bash reads without a process and which no setting of the wall clock moves. It fires once for a moment;
 * until it is told of another it waits for our end only. Where it is itself ended, another takes its place.
 */
import {spawn, type ChildProcess} from 'node:child_process';
import {readFileSync} from 'node:fs';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {Monotonic} from '../coordination';

/**
 * $1: the data directory. Orders: "at CENTISECONDS", "forever", "end". Ends everything named postgres that works in the directory: first the way that
 * lets it tidy up its shared memory, 200 ms later the certain one, until nothing is left.
 */
const SCRIPT = `
trap '' HUP INT TERM PIPE
data=$1 deadline=
fire() {
  local round left p comm
  for ((round = 0; ; round++)); do
    left=0
    for p in /proc/[0-9]*; do
      [[ $p/cwd -ef $data ]] || continue
      read -r comm <$p/comm && [[ $comm == postgres ]] || continue
      left=1
      if ((round == 0)); then kill -QUIT "\${p#/proc/}"; elif ((round >= 20)); then kill -KILL "\${p#/proc/}"; fi
    done
    ((left)) || return
    sleep 0.01
  done
} 2>/dev/null
echo ready
while :; do
  if [[ $deadline ]]; then
    read -r up _ </proc/uptime
    left=$((deadline - 10#\${up/./}))
    if ((left <= 0)); then deadline=; fire; continue; fi
    ((left > 100)) && left=100
    printf -v wait '%d.%02d' $((left / 100)) $((left % 100))
    read -r -t "$wait" order moment
    status=$?
    ((status > 128)) && continue
  else
    read -r order moment
    status=$?
  fi
  if ((status)); then fire; exit; fi
  case $order in
    (at) deadline=$moment ;;
    (forever) deadline= ;;
    (end) exit ;;
  esac
done
`;

export class Watchdog {
  private child: ChildProcess | undefined;
  private order = 'forever';
  private closed = false;

  /** `lost`: there is none, and none can be had. */
  constructor(private readonly dataDir: string, private readonly clock: Monotonic, private readonly log: Log, private readonly lost: () => void) {}

  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** Returns when it watches. */
  async ensure(): Promise<void> {
    if (this.child || this.closed) return;
    const child = spawn('bash', ['--norc', '--noprofile', '-c', SCRIPT, 'cetus-watchdog', this.dataDir], {
      stdio: ['pipe', 'pipe', 'ignore'], detached: true, cwd: '/', env: {PATH: process.env.PATH, LC_ALL: 'C'},
    });
    this.child = child;
    child.stdin!.on('error', () => undefined);
    const ended = new Promise<string>((resolve) => {
      child.once('error', (err) => resolve(err.message));
      child.once('exit', (code, signal) => resolve(`it exited with ${signal ?? code}`));
    });
    void ended.then((why) => this.gone(child, why));
    const why = await Promise.race([new Promise<undefined>((resolve) => { child.stdout!.once('data', () => resolve(undefined)); }), ended]);
    if (why !== undefined) throw new CetusError('unavailable', `the watchdog could not be started: ${why}`);
    child.stdin!.write(`${this.order}\n`);
    // It is no reason for our process to live on; its pipe is open as long as we do.
    child.unref();
    for (const stream of [child.stdin, child.stdout]) (stream as unknown as {unref?(): void}).unref?.();
  }

  /** Monotonic ms. */
  permitUntil(moment: number): void {
    // First the uptime, then our clock: where we are stopped between the two, the moment comes out too early and not too late.
    const uptimeCs = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 100;
    const leftMs = moment - this.clock.nowMs();
    this.order = leftMs === Infinity ? 'forever' : `at ${Math.max(0, Math.floor(uptimeCs + (Number.isNaN(leftMs) ? 0 : Math.max(leftMs, -1e9)) / 10))}`;
    this.child?.stdin!.write(`${this.order}\n`);
  }

  private gone(child: ChildProcess, why: string): void {
    if (this.child !== child) return;
    this.child = undefined;
    if (this.closed) return;
    this.log.warn({why}, 'the watchdog ended; starting another');
    this.ensure().catch((err: unknown) => {
      this.log.error({err}, 'there is no watchdog');
      this.lost();
    });
  }

  /** The server must have been stopped. */
  close(): void {
    this.closed = true;
    this.child?.stdin!.end('end\n');
  }
}
