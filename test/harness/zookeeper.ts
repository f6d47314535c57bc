/**
 * Real ZooKeeper servers, one or three, from the distribution's jars: each a process with a directory and ports of its own, which a test may kill,
 * stop, resume and start again. They die with the process that started them, whatever becomes of it.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {freePorts} from './ports';
import {Hopeless, until} from './wait';

const JARS = ['/usr/share/java/zookeeper.jar', '/usr/share/java/slf4j-simple.jar'];
/** Three of them share a small machine with everything else: one collector thread, no optimising compiler, which none of these live long enough to repay. */
const JVM = ['-Xmx64m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-XX:-UsePerfData', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', '-Dorg.slf4j.simpleLogger.showDateTime=true'];
const START_TIMEOUT_MS = 60_000;
const FIRST_STARTS = 3;

export interface ZooKeeperOptions {
  servers?: 1 | 3;
  /** Sessions are at least two of these long. */
  tickMs?: number;
  /** After this many ticks without its leader a follower no longer serves; a leader without followers, too. */
  syncTicks?: number;
  host?: string;
}

export type ZooKeeperRole = 'standalone' | 'leader' | 'follower';

export class ZooKeeperServer {
  private process: ChildProcess | undefined;
  private said = '';

  constructor(readonly id: number, readonly host: string, readonly port: number, readonly dir: string) {}

  get address(): string { return `${this.host}:${this.port}`; }
  get pid(): number | undefined { return this.process?.pid; }

  /** Does not wait until it serves: one of three alone never does. */
  spawn(): void {
    if (this.process) throw new Error(`server ${this.id} runs already`);
    // setpriv becomes java itself, so the pid is java's; the kernel ends it with us.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'java', ...JVM, '-Dzookeeper.forceSync=no', '-cp', JARS.join(':'),
      'org.apache.zookeeper.server.quorum.QuorumPeerMain', path.join(this.dir, 'zoo.cfg')], {stdio: ['ignore', 'ignore', 'pipe'], cwd: this.dir});
    child.stderr!.setEncoding('utf8').on('data', (text: string) => { this.said = (this.said + text).slice(-20_000); });
    child.on('exit', () => { if (this.process === child) this.process = undefined; });
    this.process = child;
  }

  /** What it last wrote to its log. */
  log(): string { return this.said; }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.process;
    if (!child) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    // A stopped process dies of nothing but SIGKILL.
    if (signal !== 'SIGKILL') child.kill('SIGCONT');
    await gone;
  }

  pause(): void { this.process?.kill('SIGSTOP'); }
  resume(): void { this.process?.kill('SIGCONT'); }

  /** undefined: it serves nobody now (no quorum, stopped, dead). */
  async role(): Promise<ZooKeeperRole | undefined> {
    const mode = /^Mode: (\w+)/m.exec(await this.ask('srvr').catch(() => ''))?.[1];
    return mode as ZooKeeperRole | undefined;
  }

  async waitUntilServing(): Promise<void> {
    await until(`ZooKeeper ${this.id} to serve`, async () => {
      if (!this.process) throw new Hopeless(`ZooKeeper ${this.id} has ended:\n${this.said}`);
      return this.role();
    }, START_TIMEOUT_MS);
  }

  /** One of ZooKeeper's four letter words: srvr, cons, wchp, dump, mntr. */
  async ask(word: string): Promise<string> {
    const socket = net.connect({host: this.host, port: this.port, timeout: 2000});
    let answer = '';
    socket.setEncoding('utf8').on('data', (text: string) => { answer += text; });
    socket.on('timeout', () => socket.destroy(new Error(`ZooKeeper ${this.id} does not answer ${word}`)));
    socket.write(word);
    await once(socket, 'close');
    return answer;
  }
}

export class ZooKeeper {
  private constructor(readonly servers: ZooKeeperServer[], private readonly dir: string) {}

  /** Serves when it resolves. */
  static async start(options: ZooKeeperOptions = {}): Promise<ZooKeeper> {
    for (let left = FIRST_STARTS; ; left -= 1) {
      const zookeeper = await ZooKeeper.prepare(options);
      try {
        for (const server of zookeeper.servers) server.spawn();
        await Promise.all(zookeeper.servers.map((server) => server.waitUntilServing()));
        return zookeeper;
      } catch (err) {
        await zookeeper.stop();
        // Somebody else took one of the ports between the look and the use.
        if (left <= 1 || !/Address already in use|BindException/.test(String(err))) throw err;
      }
    }
  }

  private static async prepare({servers: count = 1, tickMs = 200, syncTicks = 10, host = '127.0.0.1'}: ZooKeeperOptions): Promise<ZooKeeper> {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-zk-'));
    const first = await freePorts(count * 3);
    const servers = Array.from({length: count}, (_, i) => new ZooKeeperServer(i + 1, host, first + i, path.join(dir, String(i + 1))));
    const quorum = count === 1 ? [] : servers.map(({id}, i) => `server.${id}=${host}:${first + count + i}:${first + 2 * count + i}`);
    for (const server of servers) {
      fs.mkdirSync(path.join(server.dir, 'data'), {recursive: true});
      fs.writeFileSync(path.join(server.dir, 'data', 'myid'), `${server.id}\n`);
      fs.writeFileSync(path.join(server.dir, 'zoo.cfg'), [
        `tickTime=${tickMs}`, `initLimit=${Math.ceil(20_000 / tickMs)}`, `syncLimit=${syncTicks}`, `dataDir=${path.join(server.dir, 'data')}`,
        `clientPort=${server.port}`, `clientPortAddress=${host}`, 'maxClientCnxns=0', 'admin.enableServer=false', '4lw.commands.whitelist=*', ...quorum, '',
      ].join('\n'));
    }
    return new ZooKeeper(servers, dir);
  }

  /** For a client: host:port,host:port */
  get address(): string { return this.servers.map((server) => server.address).join(','); }

  /** Waits until there is one. */
  async leader(): Promise<ZooKeeperServer> {
    return until('a ZooKeeper leader', async () => {
      const roles = await Promise.all(this.servers.map((server) => server.role()));
      return this.servers.find((_, i) => roles[i] === 'leader' || roles[i] === 'standalone');
    }, START_TIMEOUT_MS);
  }

  async followers(): Promise<ZooKeeperServer[]> {
    const leader = await this.leader();
    return this.servers.filter((server) => server !== leader);
  }

  /** Those that do not run are started and those that are stopped resumed; resolves when all serve. */
  async heal(): Promise<void> {
    for (const server of this.servers) {
      if (server.pid === undefined) server.spawn();
      else server.resume();
    }
    await Promise.all(this.servers.map((server) => server.waitUntilServing()));
  }

  async stop(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.kill()));
    fs.rmSync(this.dir, {recursive: true, force: true});
  }
}
