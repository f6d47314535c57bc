/**
 * One ZooKeeper server of the distribution's, as a process that is started again when it dies. The kernel ends it with us, whatever way we end: what it has
 * acknowledged is on its disk.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {endChild} from '../up/processes';

const JARS = ['/usr/share/java/zookeeper.jar', '/usr/share/java/slf4j-simple.jar'];
/** For one small machine with three of them: about 65 MB each. */
const JVM = ['-Xmx64m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-XX:-UsePerfData', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-Dorg.slf4j.simpleLogger.showDateTime=true'];
const [FIRST_DELAY_MS, MAX_DELAY_MS] = [200, 5000];
const STEADY_MS = 10_000;
const STOP_TIMEOUT_MS = 5000;
const ASK_TIMEOUT_MS = 2000;
const POLL_MS = 100;

export interface ZooKeeperOptions { id: number; dir: string; host: string; port: number; config: string; logFile: string; log: Log }

export function requireZooKeeper(): void {
  const missing = JARS.filter((jar) => !fs.existsSync(jar));
  if (missing.length) throw new CetusError('unavailable', `ZooKeeper is not installed: ${missing.join(', ')} (\`tools/setup.sh cluster\` installs it)`);
}

export class ZooKeeperServer {
  private child: ChildProcess | undefined;
  private stopping = false;
  private delayMs = FIRST_DELAY_MS;
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly options: ZooKeeperOptions) {}

  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** Does not wait: one of three alone serves nobody. */
  start(): void {
    const {id, dir, config, logFile, log} = this.options;
    fs.mkdirSync(path.join(dir, 'data'), {recursive: true, mode: 0o700});
    fs.writeFileSync(path.join(dir, 'data', 'myid'), `${id}\n`);
    fs.writeFileSync(path.join(dir, 'zoo.cfg'), config);
    const out = fs.openSync(logFile, 'a', 0o600);
    // setpriv becomes java, so the pid is java's. A session of its own: Ctrl-C reaches us alone.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'java', ...JVM, '-cp', JARS.join(':'), 'org.apache.zookeeper.server.quorum.QuorumPeerMain', path.join(dir, 'zoo.cfg')],
      {stdio: ['ignore', out, out], cwd: dir, detached: true});
    fs.closeSync(out);
    this.child = child;
    const startedMs = Date.now();
    const gone = (why: unknown): void => {
      if (this.child !== child) return;
      this.child = undefined;
      if (this.stopping) return;
      this.delayMs = Date.now() - startedMs > STEADY_MS ? FIRST_DELAY_MS : Math.min(this.delayMs * 2, MAX_DELAY_MS);
      log.warn({zookeeper: id, why, restartInMs: this.delayMs}, 'a ZooKeeper server ended by itself');
      this.timer = setTimeout(() => this.start(), this.delayMs);
    };
    child.once('error', gone);
    child.once('exit', (code, signal) => gone(signal ?? code));
  }

  /** Whether it serves: it has a leader, or is it. */
  async serves(): Promise<boolean> {
    const {host, port} = this.options;
    const socket = net.connect({host, port, timeout: ASK_TIMEOUT_MS});
    let answer = '';
    socket.setEncoding('utf8').on('data', (text: string) => { answer += text; });
    socket.on('timeout', () => socket.destroy()).on('error', () => undefined);
    socket.write('srvr');
    await new Promise<void>((resolve) => socket.once('close', () => resolve()));
    return /^Mode: /m.test(answer);
  }

  async stop(): Promise<void> {
    this.stopping = true;
    clearTimeout(this.timer);
    if (this.child) await endChild(this.child, STOP_TIMEOUT_MS);
  }
}

/** A majority serves. */
export async function untilQuorum(servers: ZooKeeperServer[], timeoutMs: number): Promise<void> {
  for (const until = Date.now() + timeoutMs; ;) {
    const serving = await Promise.all(servers.map((server) => server.serves()));
    if (serving.filter(Boolean).length * 2 > servers.length) return;
    if (Date.now() > until) throw new CetusError('timeout', `ZooKeeper does not serve after ${timeoutMs / 1000} s; its logs say more`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
