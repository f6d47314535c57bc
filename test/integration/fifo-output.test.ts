/** A process that writes without end, through a real FIFO: what else the agent has to do gets its turns. */
import {execFileSync, spawn} from 'node:child_process';
import {constants, mkdtempSync, openSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {FifoOutput} from '../../lib/agent/runtime/fifo-output';

let dir: string;
let output: FifoOutput;
let writer: ReturnType<typeof spawn>;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cetus-fifo-'));
  execFileSync('mkfifo', [join(dir, 'out')]);
  output = new FifoOutput(openSync(join(dir, 'out'), constants.O_RDONLY | constants.O_NONBLOCK));
  writer = spawn('sh', ['-c', 'exec yes > "$0"', join(dir, 'out')], {stdio: 'ignore'});
});
afterEach(async () => {
  output.destroy();
  const ended = new Promise((resolve) => writer.once('exit', resolve));
  writer.kill('SIGKILL');
  await ended;
  rmSync(dir, {recursive: true});
});

test('costly chunks are taken one a turn of the event loop', async () => {
  const CHUNKS = 200;
  let inTurn = 0;
  let most = 0;
  let taken = 0;
  await new Promise<void>((done) => {
    const count = (): void => {
      most = Math.max(most, inTurn);
      inTurn = 0;
      if (taken < CHUNKS) setImmediate(count);
      else done();
    };
    setImmediate(count);
    output.read(() => {
      inTurn += 1;
      taken += 1;
      for (const until = performance.now() + 3; performance.now() < until;);
    }, () => undefined);
  });
  expect(most).toBeLessThanOrEqual(2);
});

test('what was paused stays paused, though its turn comes', async () => {
  let taken = 0;
  await new Promise<void>((done) => output.read(() => {
    taken += 1;
    for (const until = performance.now() + 3; performance.now() < until;);
    if (taken !== 3) return;
    output.pause();
    done();
  }, () => undefined));
  for (let turns = 0; turns < 50; turns += 1) await new Promise(setImmediate);
  expect(taken).toBe(3);
  const more = new Promise<void>((resolve) => { const look = (): void => void (taken > 3 ? resolve() : setImmediate(look)); look(); });
  output.resume();
  await more;
});
