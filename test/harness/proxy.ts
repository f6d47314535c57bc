/**
 * With CETUS_TEST_PROXY=PROGRAM.mjs every client of a TestDatacenter goes through a proxy that checks each answer against the Engine API's
 * schema; what does not fit fails the test file that provoked it. Without the variable nothing of this happens.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {until} from './wait';

const PROGRAM = process.env.CETUS_TEST_PROXY;

interface Report { operations: {id: string; statuses: Record<string, number>; problems: string[]}[] }

export class SchemaProxy {
  private constructor(readonly host: string, private readonly process: ChildProcess, private readonly report: string) {}

  static async start(target: string): Promise<SchemaProxy | undefined> {
    if (!PROGRAM) return undefined;
    // Not in the datacenter's directory: who names that is ended by `cetus down`, and counted as left behind.
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-proxy-'));
    const report = path.join(directory, 'report.json');
    // The proxy takes ajv from the folder that it runs in.
    const child = spawn(process.execPath, [PROGRAM, '--target', target, '--listen', '0', '--json', report], {stdio: ['ignore', 'ignore', 'pipe'], cwd: path.resolve(__dirname, '../..')});
    let said = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => { said = (said + text).slice(-10_000); });
    const host = await until('the proxy to listen', () => /proxy on (\S+)/.exec(said)?.[1]);
    return new SchemaProxy(host, child, report);
  }

  /** What the clients saw that the API does not describe: it should be nothing. */
  async stop(): Promise<string[]> {
    const gone = once(this.process, 'exit');
    this.process.kill('SIGTERM');
    await gone;
    const {operations} = JSON.parse(fs.readFileSync(this.report, 'utf8')) as Report;
    fs.rmSync(path.dirname(this.report), {recursive: true});
    const collected = process.env.CETUS_TEST_PROXY_REPORT;
    if (collected) fs.appendFileSync(collected, operations.map((o) => `${JSON.stringify(o)}\n`).join(''));
    return operations.flatMap((o) => o.problems.map((problem) => `${o.id}: ${problem}`));
  }
}
