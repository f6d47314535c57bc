/** docker cp, diff and export with the stock client: what is copied, what is refused, and that nothing of the node is ever reached. */
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import {gzipSync} from 'node:zlib';
import {run} from '../harness/cetus';
import {type LayerEntry, tarOf} from '../harness/images';
import {datacenterWithBusybox, onlyOnOneMachine, removeContainersAfterEach} from '../harness/suite';
import {until} from '../harness/wait';

const dc = datacenterWithBusybox();
removeContainersAfterEach(dc);
afterEach(() => dc.ok(['volume', 'prune', '-af']));
const scratch = path.join(dc.dataDir, 'scratch');
beforeAll(() => void fs.mkdirSync(scratch));

const lines = (text: string): string[] => text.split('\n').filter(Boolean);
const here = (name: string): string => path.join(scratch, name);
const start = (name: string, args: string[] = [], command = ''): Promise<string> => dc.ok(['run', '-d', '--name', name, ...args, 'busybox', 'sh', '-c', `${command}\nexec sleep 1000`]);
const exec = (name: string, command: string): Promise<string> => dc.ok(['exec', name, 'sh', '-c', command]);
const refused = async (args: string[]): Promise<string> => {
  const done = await dc.docker(args);
  expect(done.status).not.toBe(0);
  return done.stderr.trim();
};
/** The names in a tar that the client gives out. */
const listed = async (...args: string[]): Promise<string[]> => {
  const {stdoutBytes} = await dc.docker(args);
  return lines((await run('tar', ['-t'], {input: stdoutBytes})).stdout);
};
const url = (container: string, at: string, more = ''): string => `${dc.host.replace('tcp:', 'http:')}/v1.41/containers/${container}/archive?path=${encodeURIComponent(at)}${more}`;
const get = (container: string, at: string): Promise<Response> => fetch(url(container, at));
const put = (container: string, at: string, body: Buffer, more = ''): Promise<Response> => fetch(url(container, at, more), {method: 'PUT', body, headers: {'content-type': 'application/x-tar'}});
const said = async (answer: Response): Promise<[number, string]> => [answer.status, ((await answer.json()) as {message: string}).message];

describe('both ways', () => {
  test.each(['running', 'paused', 'stopped', 'created'])('a %s container: files, directories, modes, links, stdin and stdout', async (state) => {
    await dc.ok(['create', '--name', 'cone', 'busybox', 'sleep', '1000']);
    if (state !== 'created') await dc.ok(['start', 'cone']);
    if (state === 'stopped') await dc.ok(['stop', '-t', '0', 'cone']);
    if (state === 'paused') await dc.ok(['pause', 'cone']);
    const from = here(`from-${state}`);
    fs.mkdirSync(path.join(from, 'sub'), {recursive: true});
    fs.writeFileSync(path.join(from, 'file'), 'content', {mode: 0o640});
    fs.chmodSync(path.join(from, 'file'), 0o4755);
    fs.symlinkSync('file', path.join(from, 'link'));
    await dc.ok(['cp', from, 'cone:/tmp/there']);
    const back = here(`back-${state}`);
    await dc.ok(['cp', 'cone:/tmp/there/.', back]);
    expect(fs.statSync(path.join(back, 'file')).mode & 0o7777).toBe(0o4755);
    expect([fs.readFileSync(path.join(back, 'file'), 'utf8'), fs.readlinkSync(path.join(back, 'link')), fs.readdirSync(back).sort()]).toEqual(['content', 'file', ['file', 'link', 'sub']]);
    await dc.ok(['cp', '-L', 'cone:/tmp/there/link', here(`followed-${state}`)]);
    expect(fs.readFileSync(here(`followed-${state}`), 'utf8')).toBe('content');
    expect(await listed('cp', 'cone:/tmp/there', '-')).toEqual(['there/', 'there/file', 'there/link', 'there/sub/']);
    await dc.ok(['cp', '-', 'cone:/tmp/there'], {input: gzipSync(await tarOf([{name: 'piped', content: 'through', mode: 0o600}]))});
    expect(await listed('cp', 'cone:/tmp/there/piped', '-')).toEqual(['piped']);
    expect(await refused(['cp', 'cone:/tmp/no', '-'])).toBe('Error response from daemon: Could not find the file /tmp/no in container cone');
    if (state === 'stopped' || state === 'created') {
      await dc.ok(['start', 'cone']);
      expect(await exec('cone', 'cat /tmp/there/piped')).toBe('through');
    }
  }, 120_000);

  test('volumes, binds and tmpfs are what they are in the container, and what is read-only says so', async () => {
    fs.mkdirSync(here('bound'));
    const mounts = ['-v', 'data:/data', '-v', `${here('bound')}:/bound`, '-v', 'data:/ro:ro', '--tmpfs', '/fleeting', '--read-only'];
    await start('mone', mounts, 'echo v > /data/v; echo t > /fleeting/t');
    await until('its files', async () => (await exec('mone', 'cat /fleeting/t || true')) === 't');
    expect([await listed('cp', 'mone:/data', '-'), await listed('cp', 'mone:/ro/v', '-'), await listed('cp', 'mone:/fleeting', '-')]).toEqual([['data/', 'data/v'], ['v'], ['fleeting/', 'fleeting/t']]);
    const archive = await tarOf([{name: 'put', content: 'p'}]);
    for (const at of ['/data', '/bound', '/fleeting']) expect((await put('mone', at, archive)).status).toBe(200);
    expect(await said(await put('mone', '/etc', archive))).toEqual([400, 'container rootfs is marked read-only']);
    expect(await said(await put('mone', '/ro', archive))).toEqual([400, 'mounted volume is marked read-only']);
    expect(await exec('mone', 'cat /data/put /ro/put /bound/put /fleeting/put')).toBe('pppp');
    expect(fs.readFileSync(here('bound/put'), 'utf8')).toBe('p');
    await dc.ok(['stop', '-t', '0', 'mone']);
    expect([await listed('cp', 'mone:/data', '-'), await listed('cp', 'mone:/bound', '-'), await listed('cp', 'mone:/fleeting', '-')]).toEqual([['data/', 'data/put', 'data/v'], ['bound/', 'bound/put'], ['fleeting/']]);
    expect((await put('mone', '/data', await tarOf([{name: 'late', content: 'l'}]))).status).toBe(200);
    expect(await said(await put('mone', '/fleeting', archive))).toEqual([400, 'container rootfs is marked read-only']);
    await dc.ok(['start', 'mone']);
    expect(await exec('mone', 'cat /data/late')).toBe('l');
  }, 120_000);

  test('to a container that was never started, into a volume whose place the image lacks', async () => {
    await dc.ok(['create', '--name', 'never', '-v', 'fresh:/not/there', 'busybox', 'cat', '/not/there/file']);
    expect(await listed('cp', 'never:/not', '-')).toEqual(['not/', 'not/there/']);
    expect(await dc.ok(['diff', 'never'])).toBe('');
    expect((await put('never', '/not/there', await tarOf([{name: 'file', content: 'found'}]))).status).toBe(200);
    expect(await dc.ok(['start', '-a', 'never'])).toBe('found');
  }, 60_000);

  test('events are told after success alone; who is to own it all is looked up in the container', async () => {
    const since = Date.now() / 1000;
    await dc.ok(['create', '--name', 'eone', '-u', 'nobody', 'busybox', 'sleep', '1000']);
    await get('eone', '/no');
    await put('eone', '/no', Buffer.alloc(1024));
    await (await get('eone', '/etc')).arrayBuffer();
    expect((await put('eone', '/tmp', await tarOf([{name: 'owned', content: 'o', uid: 77, gid: 78}]), '&copyUIDGID=1')).status).toBe(200);
    expect((await put('eone', '/tmp', await tarOf([{name: 'kept', content: 'o', uid: 77, gid: 78}]))).status).toBe(200);
    await listed('export', 'eone');
    expect(await until('the events', async () => {
      const seen = lines(await dc.ok(['events', '--since', String(since), '--until', String(Date.now() / 1000), '--filter', 'container=eone', '--format', '{{.Action}}']));
      return seen.includes('export') ? seen : undefined;
    })).toEqual(['create', 'archive-path', 'extract-to-dir', 'extract-to-dir', 'export']);
    await dc.ok(['start', 'eone']);
    const [nobody] = lines(await exec('eone', 'id -u; id -g'));
    expect(lines(await exec('eone', 'stat -c %u:%g /tmp/owned /tmp/kept'))).toEqual([expect.stringMatching(`^${nobody}:`), '77:78']);
  }, 60_000);
});

test('diff and export: what a container changed, and its root without what is mounted', async () => {
  await start('done', ['-v', 'vol:/vol'], 'echo x > /vol/inside; mkdir /new; echo 1 > /new/f; rm /bin/vi; chmod 700 /usr; ln -s /new /link');
  await until('its changes', async () => lines(await dc.ok(['diff', 'done'])).includes('A /link'));
  const changes = ['A /link', 'A /new', 'A /new/f', 'A /vol', 'C /bin', 'C /usr', 'D /bin/vi'];
  expect(lines(await dc.ok(['diff', 'done'])).sort()).toEqual(changes);
  const names = await listed('export', 'done');
  expect(names).toEqual(expect.arrayContaining(['new/f', 'link', 'vol/', 'etc/passwd', 'proc/']));
  expect(names.filter((name) => name === 'bin/vi' || name === 'vol/inside' || /^(proc|sys|dev)\/./.test(name))).toEqual([]);
  await dc.ok(['stop', '-t', '0', 'done']);
  expect(lines(await dc.ok(['diff', 'done'])).sort()).toEqual(changes);
  expect(await listed('export', 'done')).toEqual(names);
  expect(await refused(['diff', 'nobody'])).toBe('Error response from daemon: No such container: nobody');
}, 60_000);

test('mistakes are answered as the Engine answers them', async () => {
  await start('wone', [], 'ln -s loop /tmp/loop; mkdir /tmp/dir; touch /tmp/file');
  await until('its files', () => exec('wone', 'ls /tmp/file'));
  const one = await tarOf([{name: 'f', content: 'f'}]);
  const into = async (entries: LayerEntry[], more = ''): Promise<[number, string]> => said(await put('wone', '/tmp', await tarOf(entries), more));
  expect(await said(await get('wone', ''))).toEqual([400, "bad parameter: 'path' cannot be empty"]);
  expect(await said(await get('wone', '/bin/busybox/x'))).toEqual([500, 'lstat /bin/busybox/x: not a directory']);
  expect(await said(await get('wone', '/tmp/loop'))).toEqual([500, 'evalSymlinksInScope: too many links in /tmp/loop']);
  expect(await said(await put('wone', '/tmp/no', one))).toEqual([404, 'Could not find the file /tmp/no in container wone']);
  expect(await said(await put('wone', '/tmp/file', one))).toEqual([400, 'extraction point is not a directory']);
  expect(await into([{name: '../x', content: 'x'}])).toEqual([500, '"../x" is outside of "/tmp"']);
  expect(await into([{name: 'h', type: 'link', linkname: '../../etc/passwd'}])).toEqual([500, 'invalid hardlink "/etc/passwd" -> "../../etc/passwd"']);
  expect(await into([{name: 's', type: 'symlink', linkname: '../../etc/passwd'}])).toEqual([500, 'invalid symlink "/tmp/s" -> "../../etc/passwd"']);
  expect(await into([{name: 'dir', content: 'x'}], '&noOverwriteDirNonDir=1')).toEqual([500, 'cannot overwrite directory "/tmp/dir" with non-directory "/tmp"']);
  expect(await into([{name: 'file', type: 'directory'}], '&noOverwriteDirNonDir=true')).toEqual([500, 'cannot overwrite non-directory "/tmp/file" with directory "/tmp"']);
  expect(await said(await put('wone', '/tmp', one.subarray(0, 300)))).toEqual([500, 'unexpected EOF']);
  expect(await said(await put('wone', '/tmp', gzipSync(one).subarray(0, 40)))).toEqual([500, 'unexpected EOF']);
  expect(await said(await put('wone', '/tmp', Buffer.alloc(2048, 'x')))).toEqual([500, 'archive/tar: invalid tar header']);
  const head = await fetch(url('wone', '/tmp/no'), {method: 'HEAD'});
  expect([head.status, await head.text()]).toEqual([404, '']);
  const stat = await fetch(url('wone', '/tmp/'), {method: 'HEAD'});
  expect(JSON.parse(Buffer.from(stat.headers.get('x-docker-container-path-stat')!, 'base64').toString())).toMatchObject({name: 'tmp', mode: 2 ** 31 + 2 ** 20 + 0o777, linkTarget: ''});
}, 60_000);

test('a container that swaps a directory for a link to the node all the time gains nothing', async () => {
  const secret = here('secret');
  fs.mkdirSync(secret);
  fs.writeFileSync(path.join(secret, 'file'), 'STOLEN');
  await start('rone', [], `mkdir -p /w/real ${secret}; echo mine > /w/real/file; cd /w; ln -s ${secret} abs; ln -s ../../../../../../..${secret} rel
    while :; do mv -T real aside; mv -T abs real; mv -T real abs; mv -T rel real; mv -T real rel; mv -T aside real; done 2>/dev/null &`);
  await until('the first swap', () => exec('rone', 'ls /w/aside /w/real/file 2>/dev/null || true'));
  const archive = await tarOf([{name: 'put', content: 'x'}, {name: 'deep/put', content: 'x'}]);
  let read = 0;
  for (let round = 0; round < 30; round += 1) {
    const [out] = await Promise.all([get('rone', round % 2 ? '/w/real/.' : '/w'), put('rone', '/w/real', archive)]);
    // A directory that went while it was read cuts the answer off: that is no theft.
    const bytes = await out.arrayBuffer().then((b) => Buffer.from(b), () => Buffer.alloc(0));
    expect(bytes.includes('STOLEN')).toBe(false);
    if (bytes.includes('mine')) read += 1;
  }
  expect(read).toBeGreaterThan(0);
  expect(fs.readdirSync(secret)).toEqual(['file']);
}, 120_000);

/** Of this datacenter's agents, those at work: they have a mount namespace of their own. Spares, which wait for an order, have none yet. */
function workers(): number[] {
  const pids = dc.pids();
  const agents = dc.parts('agent').map((name) => pids[name]!);
  return fs.readdirSync('/proc').filter((pid) => /^\d+$/.test(pid)).map(Number).filter((pid) => {
    try {
      const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
      if (fs.readlinkSync(`/proc/${pid}/ns/mnt`) === fs.readlinkSync(`/proc/${agents[0]}/ns/mnt`)) return false;
      return agents.includes(Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])) && fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('rootfs/worker.js');
    } catch {
      return false;
    }
  });
}

/** A request in its middle: the client has sent `body`, or has got the beginning of the answer. */
async function begun(head: string, body = ''): Promise<net.Socket> {
  const {hostname, port} = new URL(dc.host.replace('tcp:', 'http:'));
  const socket = net.connect(Number(port), hostname);
  socket.on('error', () => undefined);
  socket.write(`${head} HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n${body || '0\r\n\r\n'}`, 'latin1');
  if (!body) await new Promise((resolve) => socket.once('data', resolve));
  await until('a worker at work', () => workers().length > 0);
  return socket;
}

onlyOnOneMachine('to an agent on another machine every byte passes the endpoint, which alone has the connection')('the bytes of a file on its way in do not pass the endpoint', async () => {
  await start('bone');
  const BYTES = 40_000_000;
  fs.writeFileSync(here('bulk'), Buffer.alloc(BYTES, 'b'));
  // Nor the agent, but there the kernel counts what its children read.
  const read = (): number => Number(/^rchar: (\d+)/m.exec(fs.readFileSync(`/proc/${dc.pids()['endpoint']}/io`, 'utf8'))![1]);
  const before = read();
  await dc.ok(['cp', here('bulk'), 'bone:/tmp/bulk']);
  expect(read() - before).toBeLessThan(BYTES / 4);
  expect(await exec('bone', 'stat -c %s /tmp/bulk; tr -d b < /tmp/bulk | wc -c')).toBe(`${BYTES}\n0`);
}, 120_000);

test('who hangs up leaves no worker, and the end of the agent none either', async () => {
  await dc.ok(['create', '--name', 'hone', 'busybox', 'sleep', '1000']);
  const header = (await tarOf([{name: 'big', content: 'x'}])).subarray(0, 512);
  header.write('77777777777\0', 124, 'latin1');
  header.write('        ', 148, 'latin1');
  header.write(`${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const claim = `${(512).toString(16)}\r\n${header.toString('latin1')}\r\n`;
  (await begun('PUT /v1.41/containers/hone/archive?path=/tmp', claim)).destroy();
  await until('no worker at work', () => workers().length === 0);
  await dc.ok(['start', 'hone']);
  await exec('hone', 'truncate -s 20G /tmp/huge');
  (await begun('GET /v1.41/containers/hone/archive?path=/tmp/huge')).destroy();
  await until('no worker at work', () => workers().length === 0);
  const dawdling = await begun('PUT /v1.41/containers/hone/archive?path=/tmp', claim);
  const before = workers();
  process.kill(dc.pids()[await dc.part('agent', 'hone')]!, 'SIGKILL');
  await until('the workers to go with their agent', () => before.every((pid) => !fs.existsSync(`/proc/${pid}`)));
  dawdling.destroy();
  await until('the next agent', async () => (await get('hone', '/etc/passwd')).status === 200);
}, 120_000);
