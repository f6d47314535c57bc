/** `docker run` with the stock client: output, exit codes, terminals, stdin to the end. */
import {createHash} from 'node:crypto';
import {once} from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import {Readable} from 'node:stream';
import {run} from '../harness/cetus';
import {datacenterWithBusybox} from '../harness/suite';
import {Terminal} from '../harness/terminal';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox();

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
    expect((await dc.docker(['run', '--rm', 'busybox', 'sh', '-c', 'sleep 100 & kill -TERM $!; wait $!'])).status).toBe(143);
    const killed = dc.docker(['run', '--rm', '--name', 'killed', 'busybox', 'sleep', '1000']);
    await until('it to run', async () => (await dc.docker(['kill', 'killed'])).status === 0);
    expect((await killed).status).toBe(137);
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

  // The client's FIN comes before the process: it must still be there when the process is.
  test('stdin that is at its end from the start', async () => {
    expect(await dc.docker(['run', '-i', '--rm', 'busybox', 'sh', '-c', 'cat; echo after'], {input: ''})).toMatchObject({status: 0, stdout: 'after\n'});
    await dc.ok(['run', '-d', '--name', 'atend', 'busybox', 'sleep', '1000']);
    expect(await dc.docker(['exec', '-i', 'atend', 'sh', '-c', 'cat; echo after'], {input: ''})).toMatchObject({status: 0, stdout: 'after\n'});
    await dc.ok(['rm', '-f', 'atend']);
  }, 240_000);

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
    const parts = (['endpoint', 'agent'] as const).map((kind) => dc.parts(kind));
    const peak = [0, 0];
    const watch = setInterval(() => {
      for (const [n, names] of parts.entries()) peak[n] = Math.max(peak[n]!, ...names.map((name) => rss(pids[name]!)));
    }, 50);
    const done = await dc.docker(['run', '-i', '--rm', '--log-driver', 'none', 'busybox', 'sha256sum'], {input: Readable.from(blocks()), timeoutMs: 240_000});
    clearInterval(watch);
    expect(done.stdout.split(' ')[0]).toBe(hash.digest('hex'));
    for (const bytes of peak) expect(bytes).toBeLessThan(400 << 20);
  }, 300_000);
});

describe('a terminal', () => {
  test('is one, with a size that follows', async () => {
    const person = new Terminal(dc.host, 'stty rows 33 cols 77; docker run -it --rm busybox sh');
    await person.sees(/# /);
    person.types('tty; stty size; exit 4\n');
    expect(await person.done).toBe(4);
    expect(person.screen).toMatch(/\/dev\/(pts\/0|console)/);
    expect(person.screen).toMatch(/33 77/);
  });

  test('Ctrl-C reaches the process', async () => {
    const person = new Terminal(dc.host, 'docker run -it --rm busybox sh -c "trap \'echo caught; exit 7\' INT; echo ready; while :; do sleep 0.05; done"');
    await person.sees(/ready/);
    person.types('\x03');
    expect(await person.done).toBe(7);
    expect(person.screen).toMatch(/caught/);
  });

  // By hand over the socket: docker's client 28.2 keeps both keys to itself and over TCP then waits for the container's end, at dockerd's TCP socket too.
  test('Ctrl-P Ctrl-Q leaves and the container runs on; attach comes back to it', async () => {
    await dc.ok(['run', '-dit', '--name', 'detached', 'busybox', 'sh']);
    const address = new URL(dc.host.replace('tcp:', 'http:'));
    const socket = net.connect(Number(address.port), address.hostname);
    let seen = '';
    socket.setEncoding('latin1').on('data', (text: string) => { seen += text; });
    socket.write('POST /v1.50/containers/detached/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n');
    await until('the switch', () => seen.startsWith('HTTP/1.1 101'));
    const ended = once(socket, 'end');
    socket.write('\x10');
    socket.write('\x11');
    await ended;
    socket.destroy();
    expect(await dc.ok(['inspect', '-f', '{{.State.Running}}', 'detached'])).toBe('true');
    const back = new Terminal(dc.host, 'docker attach detached');
    await until('a prompt', () => {
      back.types('\n');
      return /# /.test(back.screen);
    });
    back.types('echo $((6*7)); exit 3\n');
    expect(await back.done).toBe(3);
    expect(back.screen).toMatch(/42/);
    await dc.ok(['rm', 'detached']);
  });

  test('exec has one too', async () => {
    await dc.ok(['run', '-d', '--name', 'host', 'busybox', 'sleep', '1000']);
    const person = new Terminal(dc.host, 'docker exec -it host sh');
    await person.sees(/# /);
    person.types('tty; exit 5\n');
    expect(await person.done).toBe(5);
    expect(person.screen).toMatch(/\/dev\/pts\/0/);
    await dc.ok(['rm', '-f', 'host']);
  });
});

function rss(pid: number): number {
  return Number(fs.readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096;
}
