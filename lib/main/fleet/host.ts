/**
 * A test host: a namespace with a containerd and an agent of its own, both kept alive while it has power. Power off takes everything at once and silently, as
 * a machine's does: processes, containers, mounts, interfaces, what lay in memory. What is on its disk, DIR/nodes/N, stays.
 */
import {randomUUID} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {type ContainerdProcess, startContainerd} from '../../agent/containerd/process';
import {tool} from '../../agent/network/tool';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {AgentConfig} from '../config';
import {cetusChild, type SupervisedChild} from '../up/child';
import {containerProcesses, killContainers, mountsBelow} from '../up/down';
import type {Part} from '../up/foreground';
import {signalAll, untilGone} from '../up/processes';
import {AGENT_PORT, nodeDir, type NodeLayout} from './layout';
import type {Underlay} from './underlay';

export interface HostOptions {
  dir: string;
  underlay: Underlay;
  /** A token with which a host that is no node yet becomes one. */
  token(): Promise<string>;
  controlPlane: string[];
  insecureRegistries: string[];
  labels: Record<string, string>;
  logLevel: string;
  log: Log;
}

const KILL_WAIT_MS = 10_000;

export class TestHost {
  private containerd: ContainerdProcess | undefined;
  private readonly agent: SupervisedChild;
  private readonly home: string;
  private readonly config: string;

  constructor(readonly node: NodeLayout, private readonly options: HostOptions) {
    this.home = nodeDir(options.dir, node);
    this.config = path.join(options.dir, 'run', `agent-${node.number}.json`);
    this.agent = cetusChild('agent', this.config, {dir: options.dir, log: options.log, name: `agent-${node.number}`, namespace: options.underlay.pathOf(node)});
  }

  get containerdPart(): Part {
    return {name: `containerd-${this.node.number}`, pid: () => this.containerd?.pid(), stop: async () => { await this.containerd?.stop(); }};
  }

  get agentPart(): Part {
    return {name: `agent-${this.node.number}`, pid: () => this.agent.pid, stop: () => this.agent.stop()};
  }

  async startContainerd(): Promise<void> {
    const {underlay, log} = this.options;
    fs.mkdirSync(path.join(this.home, 'agent'), {recursive: true, mode: 0o711});
    const stood = await underlay.ensureHost(this.node);
    this.writeConfig(stood);
    this.containerd = await startContainerd({directory: path.join(this.home, 'containerd'), log, namespace: underlay.pathOf(this.node)});
  }

  /** One that has joined goes by its certificate from then on. */
  async startAgent(): Promise<void> {
    const joined = fs.existsSync(path.join(this.home, 'agent', 'identity', 'node.pem'));
    await this.agent.start(joined ? {} : {CETUS_TOKEN: await this.options.token()});
  }

  async powerOn(): Promise<void> {
    await this.startContainerd();
    await this.startAgent();
  }

  async powerOff(): Promise<void> {
    const {underlay} = this.options;
    await underlay.unplug(this.node);
    this.containerd?.release();
    this.containerd = undefined;
    // Stopped first: nothing of it reacts to the end of something else.
    signalAll(this.processes(), 'SIGSTOP');
    await this.agent.kill();
    // Those of paused containers end with the second call alone, which thaws them.
    const left = (): number[] => {
      const pids = underlay.processes(this.node);
      signalAll(pids, 'SIGKILL');
      return pids;
    };
    const gone = await untilGone(left, KILL_WAIT_MS);
    await killContainers(this.node.prefix);
    if (!gone || this.processes().length) throw new CetusError('internal', `processes of ${this.node.name} do not end: ${this.processes().join(', ')}`);
    await underlay.removeHost(this.node);
    for (const mount of mountsBelow(this.home)) await tool('umount', ['-l', mount]);
    fs.rmSync(path.join(this.home, 'containerd', 'state'), {recursive: true, force: true});
  }

  pause(): void { signalAll(this.processes(), 'SIGSTOP'); }
  resume(): void { signalAll(this.processes(), 'SIGCONT'); }

  /** Its containers' too. */
  private processes(): number[] {
    return [...new Set([...this.options.underlay.processes(this.node), ...containerProcesses(this.node.prefix)])];
  }

  /** A host that stood already has not been booted since. */
  private writeConfig(stood: boolean): void {
    const {controlPlane, insecureRegistries, labels, logLevel} = this.options;
    const former = stood && fs.existsSync(this.config) ? (JSON.parse(fs.readFileSync(this.config, 'utf8')) as AgentConfig).bootId : undefined;
    const config: AgentConfig = {
      nodeId: this.node.nodeId, name: this.node.name, dataDir: path.join(this.home, 'agent'), rootDir: this.home, containerdSocket: path.join(this.home, 'containerd', 'containerd.sock'),
      containerdNamespace: 'cetus', listen: `${this.node.address}:${AGENT_PORT}`, controlPlane, underlay: {address: this.node.address}, prefix: this.node.prefix, labels, insecureRegistries,
      bootId: former ?? randomUUID(), logLevel,
    };
    fs.writeFileSync(this.config, JSON.stringify(config, null, 2), {mode: 0o600});
  }
}
