/**
 * A tool that stays open and takes commands by line: `ip -batch -`, `nft -i`. Starting such a tool costs 2 to 3 ms, a command in an open one
 * 0.1 to 0.5 ms (measured), and a container's start makes several. Answers come in order; the end of each is a marker, the output of a harmless
 * command sent behind. A tool that dies or hangs fails what was asked of it and is started anew by the next command.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {CetusError} from '../../base/errors';
import {networkingFailed} from './failures';

export interface CoprocessOptions {
  command: string;
  args: string[];
  marker: {line: string; pattern: RegExp};
  /** Lines that say nothing of a command's success. */
  aside?: RegExp;
  deadlineMs?: number;
}

const DEADLINE_MS = 5_000;
const MAX_WAITING = 10_000;
const MAX_OUTPUT = 1024 * 1024;

interface Waiting { timer: NodeJS.Timeout; resolve(output: string): void; reject(err: CetusError): void }

export class Coprocess {
  private child: ChildProcess | undefined;
  private waiting: Waiting[] = [];
  private buffer = '';

  constructor(private readonly options: CoprocessOptions) {}

  get pid(): number | undefined { return this.child?.pid; }

  /** What the tool printed for these lines: nothing where all is well. */
  run(lines: string[]): Promise<string> {
    if (this.waiting.length >= MAX_WAITING) return Promise.reject(networkingFailed(`too many commands wait for ${this.options.command}`, {kind: 'unavailable'}));
    if (lines.some(line => line.includes('\n'))) return Promise.reject(networkingFailed(`a command for ${this.options.command} has more than one line`));
    const child = this.child ?? this.start();
    return new Promise((resolve, reject) => {
      const deadlineMs = this.options.deadlineMs ?? DEADLINE_MS;
      const timer = setTimeout(() => this.fail(child, networkingFailed(`${this.options.command} did not answer within ${deadlineMs} ms`, {kind: 'timeout'})), deadlineMs);
      this.waiting.push({timer, resolve, reject});
      child.stdin!.write(`${[...lines, this.options.marker.line].join('\n')}\n`);
    });
  }

  /** The next command finds a new tool, which knows nothing of before. What is under way is answered first. */
  async renew(): Promise<void> {
    while (this.waiting.length) await this.run([]).catch(() => undefined);
    const {child} = this;
    this.child = undefined;
    child?.stdin!.end();
  }

  /** No more commands: the tool ends by itself. */
  end(): void {
    const {child} = this;
    this.child = undefined;
    child?.stdin!.end();
    for (const one of this.waiting.splice(0)) settle(one, new CetusError('canceled', `${this.options.command} was ended`));
  }

  private start(): ChildProcess {
    const {command, args} = this.options;
    // One pipe for both outputs, so that an error stands before the marker of its command and never behind.
    const child = spawn('sh', ['-c', 'exec "$@" 2>&1', 'sh', command, ...args], {stdio: ['pipe', 'pipe', 'ignore'], env: toolEnvironment()});
    this.child = child;
    this.buffer = '';
    child.stdin!.on('error', () => undefined);
    child.stdout!.setEncoding('utf8').on('data', (text: string) => { if (this.child === child) this.take(child, text); });
    child.on('error', err => this.fail(child, networkingFailed(`${command} cannot be run`, {kind: 'unavailable', cause: err})));
    child.on('exit', (code, signal) => this.fail(child, networkingFailed(`${command} ended (${signal ?? code}): ${this.buffer.slice(0, 500)}`, {kind: 'unavailable'})));
    // An idle tool keeps nobody alive.
    child.unref();
    (child.stdin as unknown as {unref?(): void}).unref?.();
    (child.stdout as unknown as {unref?(): void}).unref?.();
    return child;
  }

  private take(child: ChildProcess, text: string): void {
    this.buffer += text;
    for (let match = this.options.marker.pattern.exec(this.buffer); match; match = this.options.marker.pattern.exec(this.buffer)) {
      const output = this.buffer.slice(0, match.index);
      this.buffer = this.buffer.slice(match.index + match[0].length);
      const one = this.waiting.shift();
      if (one) settle(one, this.options.aside ? output.replace(this.options.aside, '') : output);
    }
    if (this.buffer.length > MAX_OUTPUT) this.fail(child, networkingFailed(`${this.options.command} printed more than ${MAX_OUTPUT} characters`));
  }

  private fail(child: ChildProcess, err: CetusError): void {
    if (this.child !== child) return;
    this.child = undefined;
    child.kill('SIGKILL');
    for (const one of this.waiting.splice(0)) settle(one, err);
  }
}

function settle(one: Waiting, result: string | CetusError): void {
  clearTimeout(one.timer);
  if (typeof result === 'string') one.resolve(result);
  else one.reject(result);
}

/** The tools live in sbin, which not every service's PATH has; HOME, because `nft -i` writes a history file there. */
export function toolEnvironment(): NodeJS.ProcessEnv {
  return {...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C', HOME: '/nonexistent'};
}

/** ip reads all links before the first name that it looks up, and says so where others make links meanwhile; a name that it missed it asks for again. */
export const IP_ASIDE = /^Dump was interrupted and may be inconsistent\.\n/gm;

/** `ip -batch`, going on after an error. */
export function ipCoprocess(): Coprocess {
  return new Coprocess({command: 'ip', args: ['-o', '-force', '-batch', '-'], marker: {line: 'link show dev lo', pattern: /^\d+: lo: .*\n/m}, aside: IP_ASIDE});
}

export function nftCoprocess(): Coprocess {
  return new Coprocess({command: 'nft', args: ['-i'], marker: {line: 'describe ip saddr', pattern: /^payload expression, datatype ipv4_addr.*\n/m}});
}
