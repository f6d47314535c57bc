/**
 * Execs: further processes in running containers. An exec is put (remembered), started once, attached to by the one who started it, and
 * remembered for REMEMBER_MS after its end. Those that run are on disk (containers/ID/execs/EXEC.json), so that an agent started anew
 * takes them up again: their exit codes are not lost, their clients are, and with them what could still come on stdin: it ends.
 *
 * Refuses: starting twice, starting in a container that does not run or is paused. Failures to start become exit code 126 or 127, and the
 * Engine's text goes to the client's stream.
 */
import {mkdirSync, readdirSync, rmSync} from 'node:fs';
import {join} from 'node:path';
import type {Duplex} from 'node:stream';
import type {Clock} from '../../base/clock';
import {CetusError, isCetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import type {ExecObservation, ExecStartQuery} from '../../schema/agent';
import type {ContainerSpec} from '../../schema/container';
import type {ExecConfig} from '../../schema/docker';
import {endedMeanwhile, notRunning} from '../container/ended';
import {startFailure} from '../container/start-failure';
import type {ReportLedger} from '../ledger/reports';
import type {SpecBuilder} from '../parts';
import type {ProcessExit, Runtime} from '../runtime/runtime';
import {attachStream} from '../stdio/attach';
import {parseDetachKeys} from '../stdio/detach';
import {frame} from '../stdio/frames';
import {StdioHub} from '../stdio/hub';
import {type NodeStore, readJson, writeWhole} from '../store';

const REMEMBER_MS = 10 * 60_000;
const MAX_REMEMBERED = 10_000;
const DRAIN_MS = 2_000;
const PROBE_OUTPUT_BYTES = 4096;
const SIGKILL = 9;

/** What execs ask of the container they run in. */
export interface ExecHost {
  spec: ContainerSpec;
  status: 'created' | 'running' | 'paused' | 'restarting' | 'exited';
  pid: number;
}

interface ExecEntry {
  id: string;
  containerId: string;
  config: ExecConfig;
  state: 'put' | 'starting' | 'running' | 'ended';
  pid: number;
  exitCode: number | null;
  hub: StdioHub;
  /** Exits may arrive before the runtime has answered the call that started the process. */
  early?: ProcessExit;
  endedMs: number;
  ended: Promise<void>;
  markEnded(): void;
  /** A health probe: not reported, not listed. */
  quiet: boolean;
}

interface StoredExec { id: string; config: ExecConfig; pid: number; /** it was given a stdin */ stdin: boolean }

export interface ExecParts { runtime: Runtime; specs: SpecBuilder; store: NodeStore; reports: ReportLedger; clock: Clock; log: Log; host(containerId: string): ExecHost; newId(): string }

export class Execs {
  private readonly entries = new Map<string, ExecEntry>();

  constructor(private readonly parts: ExecParts) {}

  put(id: string, containerId: string, config: ExecConfig): void {
    const known = this.entries.get(id);
    if (known) {
      if (known.containerId !== containerId) throw new CetusError('conflict', `exec ${id} belongs to another container`);
      return;
    }
    const host = this.mustRun(containerId);
    if (config.DetachKeys) parseDetachKeys(config.DetachKeys, 'escape');
    this.forgetOld();
    // Most execs are started as soon as they are made.
    this.expect(host)();
    this.entries.set(id, this.entry(id, containerId, config, false));
  }

  /** Starts it; the stream, where given, is served from the first byte. Resolves when the process runs (or could not be started). */
  async start(id: string, query: ExecStartQuery, open: (() => Duplex) | undefined): Promise<void> {
    const entry = this.find(id);
    const {config} = entry;
    if (entry.state !== 'put') throw new CetusError('conflict', `Error: Exec command ${id} is already running`);
    const host = this.mustRun(entry.containerId);
    const keys = query.detachKeys || config.DetachKeys || '';
    parseDetachKeys(keys, 'escape');
    entry.state = 'starting';
    const stream = open?.();
    if (stream) {
      void attachStream(entry.hub, stream, {
        stdin: config.AttachStdin === true, stdout: config.AttachStdout === true, stderr: config.AttachStderr === true,
        tty: config.Tty === true, closesStdin: true, detachKeys: keys,
      });
    }
    try {
      await this.launch(entry, host, stream !== undefined && config.AttachStdin === true);
    } catch (err) {
      const failure = startFailure(err);
      // The container's own 128, "nobody knows", is for the Engine's execs a command that could not be invoked.
      this.finish(entry, failure.exitCode === 128 ? 126 : failure.exitCode);
      this.parts.log.info({err, execId: id, containerId: entry.containerId}, 'an exec could not be started');
      if (!stream) {
        entry.hub.finish();
        throw failure.error;
      }
      const text = Buffer.from(`${failure.error.shown}\r\n`);
      if (config.AttachStdout) stream.write(config.Tty ? text : frame(1, text));
      entry.hub.finish();
      return;
    }
    const size = query.consoleSize ?? config.ConsoleSize;
    if (config.Tty && size) await this.parts.runtime.resize(entry.containerId, id, size[0], size[1]).catch(() => undefined);
  }

  async resize(id: string, height: number, width: number): Promise<void> {
    const entry = this.find(id);
    if (entry.state !== 'running') throw new CetusError('conflict', `exec ${id} is not running`);
    await this.parts.runtime.resize(entry.containerId, id, height, width).catch((err: unknown) => {
      throw isCetusError(err, 'notFound') ? new CetusError('conflict', `exec ${id} is not running`, {cause: err}) : err;
    });
  }

  observe(id: string): ExecObservation {
    const {containerId, state, exitCode, pid, config} = this.find(id);
    return {id, containerId, running: state === 'running' || state === 'starting', exitCode, pid, config, canRemove: state === 'ended'};
  }

  /** Ids of those that have not ended. */
  list(): string[] {
    return [...this.entries.values()].filter((entry) => !entry.quiet && (entry.state === 'running' || entry.state === 'starting')).map((entry) => entry.id);
  }

  async exited(exit: ProcessExit): Promise<void> {
    const entry = this.entries.get(exit.execId);
    if (!entry || entry.containerId !== exit.containerId) return;
    if (entry.state === 'starting') {
      entry.early = exit;
      return;
    }
    if (entry.state !== 'running') return;
    await this.drain(entry);
    // The client's stream ends before the report leaves: it is the one who waits. Both in one tick, so whoever asks then finds the exit code.
    entry.hub.finish();
    this.finish(entry, exit.exitCode);
    await this.parts.runtime.deleteExec(entry.containerId, entry.id)
      .catch((err: unknown) => this.parts.log.debug({err, execId: entry.id}, 'an ended exec could not be taken away; its container\'s end does it'));
  }

  /** The container's process is gone, and the kernel has ended every other in its pid namespace. */
  containerEnded(containerId: string): void {
    for (const entry of this.entries.values()) {
      if (entry.containerId !== containerId) continue;
      // One that starts now learns of the end from the runtime's refusal.
      if (entry.state === 'running') {
        this.finish(entry, 128 + SIGKILL);
        entry.hub.finish();
      } else if (entry.state === 'put') {
        this.entries.delete(entry.id);
      }
    }
  }

  /** After an agent restart: takes up what is on disk. */
  async recover(containerId: string): Promise<void> {
    for (const stored of this.stored(containerId)) {
      const entry = this.entry(stored.id, containerId, stored.config, false);
      entry.pid = stored.pid;
      entry.state = 'running';
      this.entries.set(entry.id, entry);
      const state = await this.parts.runtime.execState(containerId, entry.id).catch(() => undefined);
      if (state?.status === 'running' || state?.status === 'paused') {
        try {
          entry.hub.connect(await this.parts.runtime.reattach(containerId, entry.id, {stdin: stored.stdin, terminal: stored.config.Tty === true}));
          // The one client that an exec ever has was cut with the agent before: nothing will follow, and a process that reads must not wait for ever.
          await entry.hub.closeStdin();
        } catch (err) {
          this.parts.log.warn({err, execId: entry.id}, 'an exec\'s output could not be taken up again');
        }
        continue;
      }
      this.finish(entry, state?.status === 'stopped' ? state.exitCode : 255);
      entry.hub.finish();
      await this.parts.runtime.deleteExec(containerId, entry.id).catch(() => undefined);
    }
  }

  /** Runs a command and answers its exit code and the first bytes it wrote, with dots where there were more; killed after `timeoutMs`. */
  async probe(containerId: string, args: string[], timeoutMs: number, signal: AbortSignal): Promise<{exitCode: number; output: string}> {
    const entry = this.entry(this.parts.newId(), containerId, {Cmd: args, AttachStdout: true, AttachStderr: true}, true);
    this.entries.set(entry.id, entry);
    const output: Buffer[] = [];
    let kept = 0;
    let cut = false;
    const said = (): string => `${Buffer.concat(output).toString('utf8')}${cut ? '...' : ''}`;
    const collect = {
      write: (_stream: 1 | 2, chunk: Buffer) => {
        const part = chunk.subarray(0, PROBE_OUTPUT_BYTES - kept);
        kept += part.length;
        cut ||= part.length < chunk.length;
        if (part.length) output.push(Buffer.from(part));
      },
      end: () => undefined,
    };
    try {
      entry.state = 'starting';
      await this.launch(entry, this.mustRun(containerId), false, collect);
      const late = new AbortController();
      const onAbort = (): void => late.abort();
      signal.addEventListener('abort', onAbort, {once: true});
      const timedOut = await Promise.race([
        entry.ended.then(() => false),
        this.parts.clock.sleep(timeoutMs, late.signal).then(() => true, () => false),
      ]);
      signal.removeEventListener('abort', onAbort);
      late.abort();
      if (timedOut) {
        await this.parts.runtime.kill(containerId, entry.id, SIGKILL).catch(() => undefined);
        return {exitCode: -1, output: `Health check exceeded timeout (${formatSeconds(timeoutMs)})${kept ? `: ${said()}` : ''}`};
      }
      return {exitCode: entry.exitCode ?? -1, output: said()};
    } catch (err) {
      const failure = startFailure(err);
      entry.state = 'ended';
      return {exitCode: failure.exitCode, output: failure.error.shown};
    } finally {
      if (entry.state === 'ended') this.entries.delete(entry.id);
      else void entry.ended.then(() => this.entries.delete(entry.id));
    }
  }

  cutClients(): void {
    for (const entry of this.entries.values()) entry.hub.cutClients();
  }

  suspend(): void {
    for (const entry of this.entries.values()) entry.hub.suspend();
  }

  private async launch(entry: ExecEntry, host: ExecHost, stdin: boolean, output?: Parameters<StdioHub['connect']>[1]): Promise<void> {
    const {runtime, specs} = this.parts;
    const process = await specs.process({spec: host.spec, config: entry.config, pid: host.pid});
    const arrived = this.expect(host);
    const {pid, io} = await runtime.exec(entry.containerId, entry.id, process, {stdin, terminal: entry.config.Tty === true})
      .finally(arrived).catch(endedMeanwhile(entry.containerId));
    entry.hub.connect(io, output);
    entry.pid = pid;
    entry.state = 'running';
    if (!entry.quiet) this.store(entry, stdin);
    const {early} = entry;
    if (early) await this.exited(early);
  }

  /**
   * Not where the process's soft limit of open files is below the hard one: runc before 1.1.13 sets it from outside while the Go runtime of its own
   * child raises it to the hard limit, and only the wait in between lets runc come second.
   */
  private expect(host: ExecHost): () => void {
    const held = host.spec.hostConfig.Ulimits?.some(({Name, Soft, Hard}) => Name === 'nofile' && Soft !== Hard);
    return held ? () => undefined : this.parts.runtime.expectExec();
  }

  private async drain(entry: ExecEntry): Promise<void> {
    const late = new AbortController();
    await Promise.race([entry.hub.ended, this.parts.clock.sleep(DRAIN_MS, late.signal).catch(() => undefined)]);
    late.abort();
  }

  private finish(entry: ExecEntry, exitCode: number): void {
    if (entry.state === 'ended') return;
    entry.state = 'ended';
    entry.exitCode = exitCode;
    entry.pid = 0;
    entry.endedMs = this.parts.clock.now();
    if (!entry.quiet) {
      this.parts.reports.exec(entry.id, entry.containerId, exitCode);
      rmSync(join(this.dir(entry.containerId), `${entry.id}.json`), {force: true});
    }
    entry.markEnded();
  }

  private entry(id: string, containerId: string, config: ExecConfig, quiet: boolean): ExecEntry {
    let markEnded!: () => void;
    const ended = new Promise<void>((resolve) => (markEnded = resolve));
    return {id, containerId, config, state: 'put', pid: 0, exitCode: null, hub: new StdioHub(config.Tty === true, this.parts.clock), endedMs: 0, ended, markEnded, quiet};
  }

  private find(id: string): ExecEntry {
    const entry = this.entries.get(id);
    if (!entry || entry.quiet) throw new CetusError('notFound', `No such exec instance: ${id}`);
    return entry;
  }

  private mustRun(containerId: string): ExecHost {
    const host = this.parts.host(containerId);
    if (host.status === 'paused') throw new CetusError('conflict', `container ${containerId} is paused, unpause the container before exec`);
    if (host.status === 'restarting') throw new CetusError('conflict', `container ${containerId} is restarting, wait until the container is running`);
    if (host.status !== 'running') throw notRunning(containerId);
    return host;
  }

  private dir(containerId: string): string {
    return join(this.parts.store.dir(containerId), 'execs');
  }

  private store(entry: ExecEntry, stdin: boolean): void {
    mkdirSync(this.dir(entry.containerId), {recursive: true});
    const stored: StoredExec = {id: entry.id, config: entry.config, pid: entry.pid, stdin};
    writeWhole(join(this.dir(entry.containerId), `${entry.id}.json`), JSON.stringify(stored));
  }

  private stored(containerId: string): StoredExec[] {
    let names: string[];
    try {
      names = readdirSync(this.dir(containerId));
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw err;
    }
    return names.filter((name) => name.endsWith('.json')).map((name) => readJson<StoredExec>(join(this.dir(containerId), name))).filter((one) => one !== undefined);
  }

  private forgetOld(): void {
    const before = this.parts.clock.now() - REMEMBER_MS;
    for (const [id, entry] of this.entries) {
      if (entry.state === 'ended' && (entry.endedMs < before || this.entries.size > MAX_REMEMBERED)) this.entries.delete(id);
    }
    if (this.entries.size > 2 * MAX_REMEMBERED) throw new CetusError('unavailable', 'too many execs on this node');
  }
}

function formatSeconds(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}
