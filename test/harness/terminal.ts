/** A person at a terminal: script(1) gives the client a terminal of its own; what is typed waits for what is seen. */
import {type ChildProcess, spawn} from 'node:child_process';
import {until} from './wait';

export class Terminal {
  screen = '';
  /** The command's exit status. */
  readonly done: Promise<number>;
  private readonly process: ChildProcess;

  constructor(host: string, command: string, env: NodeJS.ProcessEnv = {}) {
    this.process = spawn('script', ['-qec', command, '/dev/null'], {env: {...process.env, DOCKER_HOST: host, TERM: 'xterm', SHELL: '/bin/sh', ...env}, stdio: ['pipe', 'pipe', 'pipe']});
    this.process.stdout!.setEncoding('utf8').on('data', (text: string) => { this.screen += text; });
    this.done = new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.process.kill('SIGKILL');
        reject(new Error(`${command} did not end; the screen shows: ${this.screen}`));
      }, 60_000);
      this.process.once('close', (code) => {
        clearTimeout(timer);
        resolve(code ?? 128);
      });
    });
    this.done.catch(() => undefined);
  }

  async sees(pattern: RegExp): Promise<void> {
    await until(`${pattern} on the screen`, () => {
      if (pattern.test(this.screen)) return true;
      throw new Error(this.screen);
    });
  }

  types(text: string): void {
    this.process.stdin!.write(text);
  }
}
