/** One run of a tool with a deadline and bounded output, for what is not in the way of a container's start. */
import {spawn} from 'node:child_process';
import {toolEnvironment} from './coprocess';
import {networkingFailed} from './failures';

export interface ToolResult { code: number; output: string; errors: string }

const DEADLINE_MS = 10_000;
const MAX_OUTPUT = 8 * 1024 * 1024;

/** Resolves whatever the exit code; rejects (`unavailable`, `timeout`) where the tool is missing or hangs. */
export function tryTool(command: string, args: string[], input = '', deadlineMs = DEADLINE_MS): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {stdio: ['pipe', 'pipe', 'pipe'], env: toolEnvironment()});
    let output = '';
    let errors = '';
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(networkingFailed(`${command} ${args.join(' ')} did not end within ${deadlineMs} ms`, {kind: 'timeout'}));
    }, deadlineMs);
    child.stdout.setEncoding('utf8').on('data', (text: string) => { if (output.length < MAX_OUTPUT) output += text; });
    child.stderr.setEncoding('utf8').on('data', (text: string) => { if (errors.length < MAX_OUTPUT) errors += text; });
    child.stdin.on('error', () => undefined).end(input);
    child.on('error', err => {
      clearTimeout(timer);
      reject(networkingFailed(`${command} cannot be run`, {kind: 'unavailable', cause: err}));
    });
    child.on('close', code => {
      clearTimeout(timer);
      resolve({code: code ?? -1, output, errors});
    });
  });
}

export async function tool(command: string, args: string[], input = ''): Promise<string> {
  const {code, output, errors} = await tryTool(command, args, input);
  if (code !== 0) throw networkingFailed(`${command} ${args.join(' ')}: ${errors.trim() || output.trim() || `exit code ${code}`}`);
  return output;
}
