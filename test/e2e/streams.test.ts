/** What lasts, with the stock client and with raw ones: stats, attach over a WebSocket. */
import {spawn} from 'node:child_process';
import {WebSocket} from 'ws';
import {datacenterWithBusybox, removeContainersAfterEach} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox();
removeContainersAfterEach(dc);

interface Row { Name: string; CPUPerc: string; MemUsage: string; NetIO: string; BlockIO: string; PIDs: string }
const row = async (name: string): Promise<Row> => JSON.parse(await dc.ok(['stats', '--no-stream', '--format', '{{json .}}', name])) as Row;

describe('docker stats', () => {
  test('the columns of one that works, of one that is paused, and of one that has ended', async () => {
    await dc.ok(['run', '-d', '--name', 'busy', '-m', '64m', 'busybox', 'sh', '-c', 'sleep 1000 & while :; do :; done']);
    const busy = await until('its processor time', async () => {
      const now = await row('busy');
      return parseFloat(now.CPUPerc) > 5 ? now : undefined;
    });
    expect(busy).toMatchObject({Name: 'busy', PIDs: '2'});
    expect(busy.MemUsage).toMatch(/^[\d.]+[KM]iB \/ 64MiB$/);
    expect(busy.NetIO).toMatch(/^[\d.]+k?B \/ [\d.]+k?B$/);
    await dc.ok(['pause', 'busy']);
    expect((await row('busy')).CPUPerc).toMatch(/^0\.\d\d%$/);
    await dc.ok(['run', '--name', 'ended', 'busybox', 'true']);
    expect(await row('ended')).toMatchObject({CPUPerc: '0.00%', MemUsage: '0B / 0B', PIDs: '0'});
  });

  test('a stream goes on over a stop and a start, and ends with the container', async () => {
    await dc.ok(['run', '-d', '--name', 'watched', 'busybox', 'sleep', '1000']);
    const socket = dc.host.startsWith('unix://') ? ['--unix-socket', dc.host.slice('unix://'.length), 'http://cetus'] : [dc.host.replace('tcp://', 'http://')];
    const curl = spawn('curl', ['-sN', ...socket.slice(0, -1), `${socket.at(-1)}/v1.41/containers/watched/stats`], {stdio: ['ignore', 'pipe', 'ignore']});
    const pids: number[] = [];
    let rest = '';
    curl.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) pids.push((JSON.parse(line) as {pids_stats: {current?: number}}).pids_stats.current ?? 0);
    });
    const ended = new Promise((resolve) => curl.once('exit', resolve));
    await until('its process', () => pids.at(-1) === 1);
    await dc.ok(['kill', 'watched']);
    await until('none', () => pids.at(-1) === 0);
    await dc.ok(['start', 'watched']);
    await until('its process again', () => pids.at(-1) === 1);
    await dc.ok(['rm', '-f', 'watched']);
    expect(await ended).toBe(0);
  });
});

test('attach over a WebSocket: stdin and its end, output and its end', async () => {
  await dc.ok(['create', '-i', '--name', 'cat', 'busybox', 'sh', '-c', 'cat; echo over >&2']);
  const ws = new WebSocket(`${dc.host.replace('unix://', 'ws+unix://').replace('tcp://', 'ws://')}${dc.host.startsWith('unix://') ? ':' : ''}/v1.51/containers/cat/attach/ws?stream=1&stdin=1&stdout=1&stderr=1`);
  let text = '';
  ws.on('message', (data: Buffer) => { text += data.toString(); });
  const closed = new Promise((resolve, reject) => void ws.once('close', resolve).once('error', reject));
  await new Promise((resolve, reject) => void ws.once('open', resolve).once('error', reject));
  await dc.ok(['start', 'cat']);
  ws.send('hello\n');
  await until('the echo', () => text === 'hello\n');
  ws.close();
  await closed;
  // StdinOnce: with its client's end the container's stdin has ended.
  expect(await dc.ok(['wait', 'cat'])).toBe('0');
  expect(await dc.ok(['logs', 'cat'])).toBe('hello');
});
