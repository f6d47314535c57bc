import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {silentLog} from '../../lib/base/log';
import {SupervisedChild} from '../../lib/main/up/child';
import {until} from '../harness/wait';

let dir: string;
let child: SupervisedChild | undefined;
beforeEach(() => { dir = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-child-')); });
afterEach(async () => {
  await child?.stop();
  fs.rmSync(dir, {recursive: true});
});

/** A process that notes each of its beginnings, and then does what is asked. */
function supervised(then: string, readyTimeoutMs = 10_000): SupervisedChild {
  const script = path.join(dir, 'child.js');
  fs.writeFileSync(script, `require('fs').appendFileSync(${JSON.stringify(path.join(dir, 'begun'))}, Date.now() + '\\n'); process.on('disconnect', () => process.exit()); ${then}`);
  return child = new SupervisedChild({name: 'part', args: [script], logFile: path.join(dir, 'log'), log: silentLog(), readyTimeoutMs});
}
const begun = (): number[] => (fs.existsSync(path.join(dir, 'begun')) ? fs.readFileSync(path.join(dir, 'begun'), 'utf8').trim().split('\n').map(Number) : []);

test('one that served is back at once, however often it was killed before', async () => {
  const part = supervised('process.send({ready: true, at: Date.now()})');
  await part.start();
  for (let kills = 1; kills <= 5; kills += 1) {
    const before = await until('it to have served a moment', () => (Date.now() - begun().at(-1)! > 500 ? part.pid : undefined));
    const killedAt = Date.now();
    process.kill(before, 'SIGKILL');
    await until('its next life', () => begun().length === kills + 1);
    expect(begun().at(-1)! - killedAt).toBeLessThan(2_000);
  }
});

test('one that never serves is started ever more rarely', async () => {
  const part = supervised('process.exit(3)');
  await expect(part.start()).rejects.toThrow('exit status 3');
  await until('some tries', () => begun().length >= 5);
  const pauses = begun().slice(1).map((at, i) => at - begun()[i]!);
  expect(pauses[3]!).toBeGreaterThan(250);
});

test('one that hangs before it serves is ended and started again', async () => {
  const part = supervised('setInterval(() => undefined, 1000)', 2_000);
  await expect(part.start()).rejects.toThrow('was not ready');
  await until('its next life', () => begun().length >= 2);
});

test('its last words are the reason that a person reads', async () => {
  const part = supervised('console.log("cetus: the port is taken"); process.exit(1)');
  await expect(part.start()).rejects.toThrow('the port is taken');
});
