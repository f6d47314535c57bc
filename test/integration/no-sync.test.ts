import {execFile} from 'node:child_process';
import path from 'node:path';
import {promisify} from 'node:util';

const run = promisify(execFile);
const NO_SYNC = path.resolve(__dirname, '../../dist/agent/build/no-sync.js');
/** The kernel refuses to sync a pipe, which its standard output is here: whoever succeeds has not asked it. */
const SYNC_A_PIPE = [process.execPath, '-e', `const {fsyncSync, fdatasyncSync} = require('node:fs'); fsyncSync(1); fdatasyncSync(1); console.log('synced')`] as const;

test('fsync is the kernel\'s without it, and succeeds at once with it, in children too', async () => {
  const [command, ...args] = SYNC_A_PIPE;
  await expect(run(command, args)).rejects.toThrow(/EINVAL/);
  expect((await run(process.execPath, [NO_SYNC, ...SYNC_A_PIPE])).stdout).toBe('synced\n');
  expect((await run(process.execPath, [NO_SYNC, 'sh', '-c', '"$@"', 'sh', ...SYNC_A_PIPE])).stdout).toBe('synced\n');
});

test('what is executed has its arguments, its environment, its status, and signals as they are by default', async () => {
  const {stdout} = await run(process.execPath, [NO_SYNC, 'sh', '-c', 'echo "$0|$1|$WORD"; grep SigIgn /proc/self/status', 'a b', ''], {env: {...process.env, WORD: 'x'}});
  expect(stdout).toContain('a b||x\n');
  const ignored = BigInt(`0x${/SigIgn:\s+([0-9a-f]+)/.exec(stdout)![1]}`);
  expect(ignored & (1n << 12n)).toBe(0n);
  await expect(run(process.execPath, [NO_SYNC, 'sh', '-c', 'exit 7'])).rejects.toMatchObject({code: 7});
  await expect(run(process.execPath, [NO_SYNC, '/no/such/program'])).rejects.toMatchObject({code: 127});
  await expect(run(process.execPath, [NO_SYNC])).rejects.toMatchObject({code: 2});
});
