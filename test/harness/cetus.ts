/**
 * A whole datacenter of its own for a test file: `cetus up` as a person starts it, on a fresh directory and a free port.
 *
 * CETUS_FLEET=N makes `cetus fleet` with N nodes of it, and two endpoints (CETUS_ENDPOINTS=M) behind one address: the same tests then run against a fleet.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {once} from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {alive} from '../../lib/base/alive';
import {fleetTraces, traces, type FleetNode, type Traces} from './leaks';
import {openRegistries} from './loopback';
import {SchemaProxy} from './proxy';
import {Hopeless, until} from './wait';

export const PROGRAM = path.resolve(__dirname, '../../dist/main/cetus.js');

export interface Finished { status: number; stdout: string; stderr: string; stdoutBytes: Buffer }
export interface RunOptions { input?: string | Buffer | NodeJS.ReadableStream; timeoutMs?: number; env?: NodeJS.ProcessEnv }

/** What `cetus up` writes to DIR/run/up.json once it serves. */
export interface Running {
  pid: number;
  /** The first is where clients go. */
  listen: string[];
  admin: string; prefix: string; children: Record<string, number>;
  /** Of a fleet. */
  endpoints?: {listen: string; admin: string}[];
  nodes?: FleetNode[];
}

/** Where a test has parts of its own in mind, or one machine, it gets them. */
const FLEET = process.env.CETUS_FLEET ? ['--nodes', process.env.CETUS_FLEET, '--endpoints', process.env.CETUS_ENDPOINTS ?? '2'] : undefined;
const ONE_MACHINE = ['--containerd', '--postgres', '--zookeeper', '--tls-cert', '--admin-listen', '--listen'];

/** Parts of which a fleet has several. */
export type Kind = 'agent' | 'containerd' | 'endpoint';

export class TestDatacenter {
  private process: ChildProcess | undefined;
  private proxy: SchemaProxy | undefined;
  running!: Running;

  /** On a directory that is made by the first `up`. */
  readonly dataDir = path.join(os.tmpdir(), `cetus-${randomBytes(4).toString('hex')}`);

  /** `cluster`: on a replicated store of its own; `fleet`: with several nodes. */
  constructor(private readonly args: string[] = [], public verb: 'up' | 'cluster' | 'fleet' = 'up') {
    if (!FLEET || verb !== 'up' || args.some((arg) => ONE_MACHINE.includes(arg))) return;
    this.verb = 'fleet';
    this.args = [...args, ...FLEET];
  }

  /** Where clients go. */
  get host(): string {
    return this.proxy?.host ?? this.running.listen[0];
  }

  async up(): Promise<void> {
    fs.mkdirSync(this.dataDir, {recursive: true});
    // Postgres runs as a user of its own, who must be able to pass.
    fs.chmodSync(this.dataDir, 0o711);
    fs.rmSync(path.join(this.dataDir, 'run', 'up.json'), {force: true});
    const out = fs.openSync(path.join(this.dataDir, 'up.log'), 'a');
    // The port is kept over restarts: clients hold it in DOCKER_HOST.
    const listen = this.running ? this.running.listen[0].replace('tcp://', '') : '127.0.0.1:0';
    const at = this.verb === 'fleet' ? ['--listen', '127.0.0.1:0', '--balance', listen] : ['--listen', listen];
    const child = spawn(process.execPath, [PROGRAM, this.verb, '--data', this.dataDir, ...at, ...this.args], {stdio: ['ignore', out, out]});
    fs.closeSync(out);
    this.process = child;
    this.running = await until('cetus up to serve', () => {
      if (child.exitCode !== null) throw new Hopeless(`cetus ${this.verb} ended with ${child.exitCode}: ${fs.readFileSync(path.join(this.dataDir, 'up.log'), 'utf8').slice(-3000)}`);
      return readJson<Running>(path.join(this.dataDir, 'run', 'up.json'));
    }, 180_000);
    await this.ready();
    if (!this.args.includes('--tls-cert')) this.proxy ??= await SchemaProxy.start(this.running.listen[0]);
  }

  /** What a kind of datacenter needs before it is used. */
  protected async ready(): Promise<void> {
    if (this.running.nodes) await openRegistries(this.running);
  }

  /** The current process ids: a part that was restarted has a new one. */
  pids(): Record<string, number> {
    return readJson<Running>(path.join(this.dataDir, 'run', 'up.json'))?.children ?? {};
  }

  get isFleet(): boolean { return this.running.nodes !== undefined; }

  /** As pids() names them: one on one machine; of a fleet, those of each node, or each endpoint. */
  parts(kind: Kind): string[] {
    return Object.keys(this.pids()).filter((name) => name === kind || name.startsWith(`${kind}-`)).sort();
  }

  /** One that stays for its kind: any other is as good. With a container's name, the one on its node. */
  async part(kind: Kind | 'postgres', container?: string): Promise<string> {
    if (kind === 'postgres' || !this.isFleet) return kind;
    return kind === 'endpoint' ? 'endpoint-1' : `${kind}-${container === undefined ? 1 : (await this.nodeOf(container)).number}`;
  }

  /** Of a fleet: where this container is, by its name or whole id. */
  async nodeOf(container: string): Promise<FleetNode> {
    const found = await this.admin<{name: string; id: string; node: string}[]>('/v1/containers?limit=1000');
    const its = found.find(({name, id}) => name === container || id === container);
    if (!its) throw new Error(`there is no container ${container}`);
    return this.running.nodes!.find(({name}) => name === its.node)!;
  }

  /** The directories with an agent/ and a containerd/ in them: a node's each. */
  get nodeDirs(): string[] {
    return this.running.nodes?.map(({number}) => this.nodeDir(number)) ?? [this.dataDir];
  }

  async nodeDirOf(container: string): Promise<string> {
    return this.isFleet ? this.nodeDir((await this.nodeOf(container)).number) : this.dataDir;
  }

  /** What a program says in the network namespace of the container's node. */
  async onNodeOf(container: string, program: string, ...args: string[]): Promise<string> {
    const inside = this.isFleet ? ['nsenter', `--net=/run/netns/${(await this.nodeOf(container)).namespace}`] : [];
    const [first, ...words] = [...inside, program, ...args];
    const done = await run(first!, words, {env: {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`}});
    if (done.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${done.stderr}`);
    return done.stdout;
  }

  protected nodeDir(number: number): string { return path.join(this.dataDir, 'nodes', String(number)); }

  /** What is on the machine because of it, as long as it runs. */
  traces(): Traces {
    const {prefix, nodes} = this.running;
    return nodes ? fleetTraces(this.dataDir, prefix, nodes, false) : traces(this.dataDir, prefix);
  }

  /** Of up.json, which follows a moment behind: 0 or a dead one where the next life is not written down yet. */
  living(part: string): Promise<number> {
    return until(`${part} to live`, () => {
      const pid = this.pids()[part];
      return pid !== undefined && pid > 0 && alive(pid) && pid;
    });
  }

  /** Dies and is started again by whoever keeps it. Answers when its next life is there (not: when it serves). */
  async kill(part: string, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const before = await this.living(part);
    process.kill(before, signal);
    await until(`the next life of ${part}`, async () => (await this.living(part)) !== before);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }

  docker(args: string[], options: RunOptions = {}): Promise<Finished> {
    return run('docker', args, {...options, env: {...process.env, DOCKER_HOST: this.host, DOCKER_CLI_HINTS: 'false', DOCKER_CONFIG: path.join(this.dataDir, 'docker-config'), ...options.env}});
  }

  /** As docker(), but a status other than 0 fails the test with what was printed. */
  async ok(args: string[], options: RunOptions = {}): Promise<string> {
    const done = await this.docker(args, options);
    if (done.status !== 0) throw new Error(`docker ${args.join(' ')} ended with ${done.status}\n${done.stdout}\n${done.stderr}`);
    return done.stdout.trim();
  }

  cetus(args: string[], options: RunOptions = {}): Promise<Finished> {
    return run(process.execPath, [PROGRAM, ...args, '--admin', this.running.admin], options);
  }

  /** The operator's API: what the datacenter itself knows. */
  admin<T>(path: string): Promise<T> {
    return new Promise((resolve, reject) => {
      http.get({socketPath: this.running.admin.replace('unix://', ''), path}, (res) => {
        let text = '';
        res.setEncoding('utf8').on('data', (c: string) => { text += c; })
          .on('end', () => (res.statusCode === 200 ? resolve(JSON.parse(text) as T) : reject(new Error(`${path}: ${res.statusCode} ${text}`))));
      }).on('error', reject);
    });
  }

  /** Removes every container, ends everything, and returns what is left on the machine: it should be nothing. */
  async destroy(): Promise<Traces> {
    if (!this.process || this.process.exitCode !== null || this.process.signalCode !== null) await this.up();
    const misfits = await this.proxy?.stop() ?? [];
    await this.stop();
    const down = await run(process.execPath, [PROGRAM, 'down', '--data', this.dataDir], {timeoutMs: 60_000});
    if (down.status !== 0) throw new Error(`cetus down: ${down.stderr}`);
    const {prefix, nodes} = this.running;
    const left = nodes ? fleetTraces(this.dataDir, prefix, nodes) : traces(this.dataDir, prefix, true);
    fs.rmSync(this.dataDir, {recursive: true, force: true});
    if (misfits.length) throw new Error(`answers out of the API's schema:\n${misfits.join('\n')}`);
    return left;
  }
}

export const NOTHING_LEFT: Traces = {processes: [], mounts: [], links: [], namespaces: [], tables: [], cgroups: [], fifos: []};

export async function startCetus(args: string[] = []): Promise<TestDatacenter> {
  const datacenter = new TestDatacenter(args);
  await datacenter.up();
  return datacenter;
}

export function run(program: string, args: string[], options: RunOptions = {}): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {env: options.env ?? process.env, stdio: ['pipe', 'pipe', 'pipe']});
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${program} ${args.join(' ')} did not end in time\n${Buffer.concat(stdout).toString().slice(-2000)}\n${Buffer.concat(stderr).toString().slice(-2000)}`));
    }, options.timeoutMs ?? 60_000);
    child.stdout.on('data', (c: Buffer) => stdout.push(c));
    child.stderr.on('data', (c: Buffer) => stderr.push(c));
    child.stdin.on('error', () => undefined); // the program may end before it has read all
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      const stdoutBytes = Buffer.concat(stdout);
      resolve({status: code ?? (signal ? 128 : 1), stdout: stdoutBytes.toString(), stderr: Buffer.concat(stderr).toString(), stdoutBytes});
    });
    if (options.input === undefined) child.stdin.end();
    else if (typeof options.input === 'string' || Buffer.isBuffer(options.input)) child.stdin.end(options.input);
    else options.input.pipe(child.stdin);
  });
}

function readJson<T>(file: string): T | undefined {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as T;
  } catch {
    return undefined;
  }
}
