/** `docker run` with the stock client: output, exit codes, terminals, stdin to the end. */
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import {Readable} from 'node:stream';
import {NOTHING_LEFT, run, startCetus, type TestDatacenter} from '../harness/cetus';
import {busyboxArchive} from '../harness/busybox';
import {until} from '../harness/wait';

let dc: TestDatacenter;
beforeAll(async () => {
  dc = await startCetus();
  await dc.ok(['load', '-i', await busyboxArchive()]);
}, 120_000);
afterAll(async () => {
  expect(await dc.destroy()).toEqual(NOTHING_LEFT);
}, 120_000);

describe('output and exit codes', () => {
  test('hello', async () => {
    expect(await dc.docker(['run', '--rm', 'busybox', 'echo', 'hello'])).toMatchObject({status: 0, stdout: 'hello\n', stderr: ''});
  });

  test('stdout and stderr stay apart, the exit code arrives', async () => {
    expect(await dc.docker(['run', '--rm', 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 42']))
      .toMatchObject({status: 42, stdout: 'out\n', stderr: 'err\n'});
  });

  test('a command that does not exist is 127, one that cannot be executed 126', async () => {
    const missing = await dc.docker(['run', '--rm', 'busybox', 'nosuchcommand']);
    expect(missing.status).toBe(127);
    expect(missing.stderr).toMatch(/exec: "nosuchcommand": executable file not found in \$PATH/);
    const directory = await dc.docker(['run', '--rm', 'busybox', '/etc']);
    expect(directory.status).toBe(126);
  });

  test('a signal shows as 128 + n', async () => {
    expect((await dc.docker(['run', '--rm', 'busybox', 'sh', '-c', 'kill -9 $$'])).status).toBe(137);
  });

  test('--rm leaves nothing', async () => {
    await dc.ok(['run', '--rm', '--name', 'shortlived', 'busybox', 'true']);
    expect(await dc.ok(['ps', '-aq', '--filter', 'name=shortlived'])).toBe('');
  });

  test('no such image, and the registry that cannot be reached is named', async () => {
    const done = await dc.docker(['run', '--rm', '127.0.0.1:1/nothing:here', 'true']);
    expect(done.status).toBe(125);
    expect(done.stderr).toMatch(/127\.0\.0\.1:1/);
  });

  test('a hundred lines in order', async () => {
    const done = await dc.docker(['run', '--rm', 'busybox', 'seq', '1', '10000']);
    expect(done.stdout).toBe(`${Array.from({length: 10000}, (_, n) => n + 1).join('\n')}\n`);
  });
});

describe('stdin', () => {
  test('half-close: the container sees the end and its answer still comes', async () => {
    const done = await dc.docker(['run', '-i', '--rm', 'busybox', 'sh', '-c', 'cat; echo after'], {input: 'one\ntwo\n'});
    expect(done).toMatchObject({status: 0, stdout: 'one\ntwo\nafter\n'});
  });

  test('binary, both ways, every byte', async () => {
    const bytes = Buffer.from(Array.from({length: 1 << 20}, (_, n) => (n * 7919) & 0xff));
    const done = await dc.docker(['run', '-i', '--rm', 'busybox', 'cat'], {input: bytes});
    expect(done.status).toBe(0);
    expect(done.stdoutBytes.equals(bytes)).toBe(true);
  });

  test('a tar through a container', async () => {
    const dir = fs.mkdtempSync(path.join(dc.dataDir, 'tar-'));
    for (const name of ['a', 'b', 'c']) fs.writeFileSync(path.join(dir, name), name.repeat(1000));
    const tar = await run('tar', ['c', '-C', dir, '.']);
    const done = await dc.docker(['run', '-i', '--rm', 'busybox', 'tar', 't'], {input: tar.stdoutBytes});
    expect(done.stdout.trim().split('\n').sort()).toEqual(['./', './a', './b', './c']);
  });

  test('a large stream does not grow our memory', async () => {
    const total = 512 << 20;
    const hash = createHash('sha256');
    function* blocks(): Generator<Buffer> {
      const block = Buffer.alloc(1 << 20, 0x41);
      for (let i = 0; i < total; i += block.length) {
        hash.update(block);
        yield block;
      }
    }
    const pids = dc.pids();
    const peak = {endpoint: 0, agent: 0};
    const watch = setInterval(() => {
      for (const name of ['endpoint', 'agent'] as const) peak[name] = Math.max(peak[name], rss(pids[name]));
    }, 50);
    const done = await dc.docker(['run', '-i', '--rm', '--log-driver', 'none', 'busybox', 'sha256sum'], {input: Readable.from(blocks()), timeoutMs: 60_000});
    clearInterval(watch);
    expect(done.stdout.split(' ')[0]).toBe(hash.digest('hex'));
    expect(peak.endpoint).toBeLessThan(400 << 20);
    expect(peak.agent).toBeLessThan(400 << 20);
  });
});

describe('a terminal', () => {
  // script(1) gives the client a terminal of its own, as a person has.
  const terminal = (command: string, input: string): Promise<{status: number; stdout: string}> =>
    run('script', ['-qec', command, '/dev/null'], {input, env: {...process.env, DOCKER_HOST: dc.host, TERM: 'xterm'}});

  test('is one, with a size that follows', async () => {
    const done = await terminal('stty rows 33 cols 77; docker run -it --rm busybox sh -c "tty; sleep 0.3; stty size"', '');
    expect(done.stdout).toMatch(/\/dev\/(pts\/0|console)/);
    expect(done.stdout).toMatch(/33 77/);
  });

  test('Ctrl-C reaches the process', async () => {
    const name = 'interrupted';
    const client = terminal(`docker run -it --name ${name} busybox sh -c "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done"`, '');
    await until('the trap to be set', async () => (await dc.docker(['logs', name])).stdout.includes('ready'));
    await dc.ok(['kill', '-s', 'INT', name]);
    const done = await client;
    expect(done.stdout).toMatch(/caught/);
    expect(await dc.ok(['inspect', '-f', '{{.State.ExitCode}}', name])).toBe('7');
    await dc.ok(['rm', name]);
  });

  test('Ctrl-P Ctrl-Q leaves and the container runs on; attach comes back to it', async () => {
    const name = 'detached';
    await dc.ok(['run', '-dit', '--name', name, 'busybox', 'sh']);
    const left = await terminal(`docker attach ${name}`, '\x10\x11');
    expect(left.stdout).toMatch(/read escape sequence|^\s*$/);
    expect(await dc.ok(['inspect', '-f', '{{.State.Running}}', name])).toBe('true');
    const back = await terminal(`docker attach ${name}`, 'echo $((6*7)); exit 3\n');
    expect(back.stdout).toMatch(/42/);
    await until('it to end', async () => (await dc.ok(['inspect', '-f', '{{.State.ExitCode}}', name])) === '3');
    await dc.ok(['rm', name]);
  });
});

function rss(pid: number): number {
  return Number(fs.readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096;
}
