import {spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {favourSession} from '../../lib/main/priority';

const canFavour = process.getuid?.() === 0 && fs.existsSync('/proc/self/autogroup');

test('the session of a process is favoured where the kernel knows such a thing, and nobody else\'s', async () => {
  const own = fs.existsSync('/proc/self/autogroup') ? fs.readFileSync('/proc/self/autogroup', 'utf8') : '';
  const child = spawn('sleep', ['60'], {detached: true, stdio: 'ignore'});
  await once(child, 'spawn');
  try {
    expect(favourSession(child.pid!)).toBe(canFavour);
    if (canFavour) expect(fs.readFileSync(`/proc/${child.pid}/autogroup`, 'utf8')).toMatch(/nice -10$/m);
    if (own) expect(fs.readFileSync('/proc/self/autogroup', 'utf8')).toBe(own);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});

test('a process that is gone, or a kernel without sessions to share among, is no error', () => {
  const proc = fs.mkdtempSync(path.join(os.tmpdir(), 'cetus-proc-'));
  expect(favourSession(1, proc)).toBe(false);
  fs.rmSync(proc, {recursive: true});
});
