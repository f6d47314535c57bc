/**
 * A scripted process of the fake runtime: a handful of commands with busybox's meaning, joined by `;`, run in order.
 *
 *   echo WORDS [>&2]   exit N   true   false   cat   sleep SECONDS   yes   trap "exit N" TERM
 *
 * `cat` copies stdin to stdout until its end; `yes` writes for ever. As in a real container, process 1 ignores every signal it does not
 * trap, but SIGKILL.
 */
import {type Clock, formatNs} from '../../base/clock';
import {FakePipe} from './fake-pipe';

const COMMANDS = new Set(['echo', 'exit', 'true', 'false', 'cat', 'sleep', 'yes', 'trap', 'sh']);
const SIGKILL = 9;
const SIGTERM = 15;
const YES = Buffer.from('y\n'.repeat(32 * 1024));

export interface FakeExit { exitCode: number; exitedAt: string }

export class FakeProcess {
  readonly stdin = new FakePipe();
  readonly stdout = new FakePipe();
  readonly stderr = new FakePipe();
  exit: FakeExit | undefined;
  readonly exited: Promise<FakeExit>;
  started = false;
  private readonly killed = new AbortController();
  private settle!: (exit: FakeExit) => void;
  private trap: number | undefined;
  private gate: Promise<void> = Promise.resolve();
  private openGate: (() => void) | undefined;

  constructor(readonly pid: number, private readonly args: string[], private readonly isInit: boolean, private readonly clock: Clock, hasStdin: boolean) {
    this.exited = new Promise(resolve => { this.settle = resolve; });
    if (!hasStdin) this.stdin.end();
  }

  static knows(args: string[]): boolean {
    return COMMANDS.has(args[0] ?? '');
  }

  start(): void {
    this.started = true;
    this.run().then(code => this.finish(code), () => this.finish(128 + SIGKILL));
  }

  signal(signal: number): void {
    if (this.exit) return;
    if (signal === SIGTERM && this.trap !== undefined) this.finish(this.trap);
    else if (signal === SIGKILL || !this.isInit) this.finish(128 + signal);
  }

  pause(): void {
    this.gate = new Promise(resolve => { this.openGate = resolve; });
  }

  resume(): void {
    this.openGate?.();
    this.openGate = undefined;
  }

  private finish(exitCode: number): void {
    if (this.exit) return;
    this.exit = {exitCode, exitedAt: formatNs(this.clock.nowNs())};
    this.killed.abort(new Error('killed'));
    this.resume();
    this.stdout.end();
    this.stderr.end();
    this.stdin.breakReader();
    this.settle(this.exit);
  }

  private async run(): Promise<number> {
    const script = this.args[0] === 'sh' && this.args[1] === '-c' ? (this.args[2] ?? '').split(';').map(words) : [this.args];
    let code = 0;
    for (const command of script.filter(one => one.length > 0)) {
      await this.gate;
      if (this.exit) return 0;
      if (command[0] === 'exit') return Number(command[1] ?? 0);
      code = await this.command(command);
    }
    return code;
  }

  private async command([name, ...args]: string[]): Promise<number> {
    switch (name) {
      case 'echo': {
        const toErr = args.at(-1) === '>&2';
        await (toErr ? this.stderr : this.stdout).write(Buffer.from(`${(toErr ? args.slice(0, -1) : args).join(' ')}\n`));
        return 0;
      }
      case 'true': case 'sh': return 0;
      case 'false': return 1;
      case 'trap':
        this.trap = Number(/exit (\d+)/.exec(args[0] ?? '')?.[1] ?? 0);
        return 0;
      case 'sleep':
        await this.clock.sleep(Number(args[0]) * 1000, this.killed.signal);
        return 0;
      case 'cat':
        for (let chunk = await this.stdin.read(); chunk; chunk = await this.stdin.read()) await this.stdout.write(chunk);
        return 0;
      case 'yes':
        while (!this.exit) {
          await this.gate;
          await this.stdout.write(YES);
          // Promises alone would never let the reader's timers and signals in.
          await new Promise(resolve => { setImmediate(resolve); });
        }
        return 0;
      default: return 127;
    }
  }
}

/** Words of a command, with double quotes kept together. */
function words(command: string): string[] {
  return (command.match(/"[^"]*"|\S+/g) ?? []).map(word => word.replace(/^"(.*)"$/, '$1'));
}
