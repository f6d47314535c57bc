/**
 * Testcontainers as a project's own tests use it, pointed here by DOCKER_HOST alone: waiting, networks, copying, exec, reuse, and a reaper
 * of ours in place of Ryuk, which removes through a mounted docker.sock what a test run that died has left.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import {type Readable} from 'node:stream';
import {text} from 'node:stream/consumers';
import {Client} from 'pg';
import tar from 'tar-stream';
import {NGINX, POSTGRES, REAPER, REDIS, servicesArchive} from '../harness/services';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

type Library = typeof import('testcontainers');
let lib: Library;
const runs: ChildProcess[] = [];
const dc = datacenterWithBusybox({
  prepare: async () => {
    await dc.ok(['load', '-q', '-i', servicesArchive()], {timeoutMs: 120_000});
    // Read when the library is first used. Who finds a reaper joins its session, so that these tests have none beside the one they test.
    Object.assign(process.env, {DOCKER_HOST: dc.host, TESTCONTAINERS_RYUK_DISABLED: 'true', DOCKER_CONFIG: path.join(dc.dataDir, 'docker-config')});
    lib = await import('testcontainers');
  },
  cleanUp: async () => runs.forEach((child) => child.kill('SIGKILL')),
});

const names = async (...filters: string[]): Promise<string[]> => (await dc.ok(['ps', '-a', '--format', '{{.Names}}', ...filters.flatMap((f) => ['--filter', f])])).split('\n').filter(Boolean);
const body = async (host: string, port: number, at = '/'): Promise<string> => (await (await fetch(`http://${host}:${port}${at}`)).text()).trim();
/** The files of an archive: name -> content. */
async function filesOf(archive: NodeJS.ReadableStream): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const extract = tar.extract();
  extract.on('entry', (header, stream, next) => {
    void text(stream).then((content) => {
      if (header.type === 'file') found[header.name] = content;
      next();
    });
  });
  archive.pipe(extract);
  await once(extract, 'finish');
  return found;
}

describe('a container', () => {
  test('waits for its port, is reached at the mapped one, says what it is, restarts, and goes', async () => {
    const web = await new lib.GenericContainer(NGINX).withExposedPorts(80).withLabels({purpose: 'port'}).withWaitStrategy(lib.Wait.forListeningPorts()).start();
    expect(web.getHost()).toBe(new URL(dc.host).hostname);
    expect(await body(web.getHost(), web.getMappedPort(80))).toMatch(/Welcome to nginx/);
    expect(web.getLabels()).toMatchObject({purpose: 'port', 'org.testcontainers': 'true'});
    expect(web.getIpAddress('bridge')).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
    await web.restart();
    await until('it to answer again', async () => /nginx/.test(await body(web.getHost(), web.getMappedPort(80))));
    await web.stop();
    expect(await names('label=purpose=port')).toEqual([]);
  });

  test('waits for a line of its log, as often as asked, and its log is read', async () => {
    const heard: string[] = [];
    const talker = await new lib.GenericContainer('busybox').withCommand(['sh', '-c', 'for i in 1 2 3; do echo round $i; done; echo problem >&2; exec sleep 1000'])
      .withLogConsumer((stream) => void stream.on('data', (line: string) => heard.push(String(line)))).withWaitStrategy(lib.Wait.forLogMessage(/round \d/, 3)).start();
    await until('the consumer to have heard', () => heard.join('').includes('round 3') && heard.join('').includes('problem'));
    const logs = await talker.logs();
    let seen = '';
    logs.on('data', (line: string) => { seen += String(line); });
    await until('the log', () => ['round 1', 'round 3', 'problem'].every((line) => seen.includes(line)));
    logs.destroy();
    await talker.stop({timeout: 0});
  });

  test('waits for an answer of HTTP, for its health, for a command, for its end, for all of them', async () => {
    const [http, healthy, shell, done] = await Promise.all([
      new lib.GenericContainer(NGINX).withExposedPorts(80).withWaitStrategy(lib.Wait.forHttp('/', 80).forStatusCode(200).forResponsePredicate((t) => t.includes('nginx'))).start(),
      new lib.GenericContainer(REDIS).withExposedPorts(6379).withHealthCheck({test: ['CMD-SHELL', 'redis-cli ping'], interval: 200, timeout: 20_000, retries: 100, startPeriod: 0}).withWaitStrategy(lib.Wait.forHealthCheck()).start(),
      new lib.GenericContainer('busybox').withCommand(['sh', '-c', 'touch /ready; exec sleep 1000'])
        .withWaitStrategy(lib.Wait.forAll([lib.Wait.forSuccessfulCommand('test -e /ready'), lib.Wait.forSuccessfulCommand('true')])).start(),
      new lib.GenericContainer('busybox').withCommand(['true']).withWaitStrategy(lib.Wait.forOneShotStartup()).start(),
    ]);
    expect((await healthy.exec(['redis-cli', 'ping'])).output.trim()).toBe('PONG');
    await Promise.all([http, healthy, shell, done].map((c) => c.stop({timeout: 0})));
  });

  test('that does not become what is waited for is a failure, with the time it had', async () => {
    const failing = new lib.GenericContainer('busybox').withCommand(['sleep', '1000']).withLabels({purpose: 'fails'}).withWaitStrategy(lib.Wait.forLogMessage('never said')).withStartupTimeout(1_000);
    await expect(failing.start()).rejects.toThrow(/"never said" not received after 1000ms/);
    await until('it to be taken away', async () => (await names('label=purpose=fails')).length === 0);
    await expect(new lib.GenericContainer(`${new URL(dc.host).hostname}:1/no/such:image`).start()).rejects.toThrow(/connection refused|no such image|connect/i);
  });

  test('has the options it was given', async () => {
    const box = await new lib.GenericContainer('busybox').withCommand(['sleep', '1000']).withEnvironment({A: 'b'}).withUser('1000').withWorkingDir('/tmp').withHostname('boxhost')
      .withTmpFs({'/scratch': 'rw,noexec,size=65536k'}).withUlimits({nofile: {hard: 2000, soft: 1000}}).withResourcesQuota({memory: 0.125, cpu: 0.5}).withSharedMemorySize(32 << 20)
      .withAddedCapabilities('NET_ADMIN').withDroppedCapabilities('CHOWN').withExtraHosts([{host: 'elsewhere', ipAddress: '10.11.12.13'}]).withIpcMode('private').start();
    const sh = async (command: string, user?: string): Promise<string> => (await box.exec(['sh', '-c', command], user ? {user} : {})).stdout.trim();
    expect(await sh('id -u; pwd; hostname; echo $A')).toBe('1000\n/tmp\nboxhost\nb');
    // Of the container's own process: Debian's runc gives an exec the hard limit for the soft one, under any engine.
    expect(await sh('grep "Max open files" /proc/1/limits')).toMatch(/^Max open files\s+1000\s+2000\s/);
    expect(await sh('grep -c elsewhere /etc/hosts; df -k /scratch | tail -1; df -k /dev/shm | tail -1')).toMatch(/^1\n.*\b65536\b.*\n.*\b32768\b/);
    expect(JSON.parse(await dc.ok(['inspect', '-f', '{{json .HostConfig}}', box.getId()]))).toMatchObject({Memory: 128 << 20, NanoCpus: 500_000_000, CapAdd: ['NET_ADMIN'], CapDrop: ['CHOWN'], IpcMode: 'private'});
    await box.stop({timeout: 0});
  });

  test('exec: output together and apart, exit code, user, directory, environment', async () => {
    const box = await new lib.GenericContainer('busybox').withCommand(['sleep', '1000']).start();
    expect(await box.exec(['sh', '-c', 'echo out; echo err >&2; exit 5'])).toMatchObject({exitCode: 5, stdout: 'out\n', stderr: 'err\n'});
    expect(await box.exec(['sh', '-c', 'id -u; pwd; echo $X'], {user: '33', workingDir: '/etc', env: {X: 'y'}})).toMatchObject({exitCode: 0, output: '33\n/etc\ny\n'});
    expect((await box.exec(['no-such-program'])).exitCode).toBe(127);
    expect((await box.exec(['sh', '-c', 'seq 1 200000'])).stdout).toHaveLength(1_288_895);
    await box.stop({timeout: 0});
  });

  test('a PostgreSQL, as most people meet Testcontainers', async () => {
    // Ready twice, as the usual image is: the first server runs the scripts and nobody else reaches it.
    const postgres = await new lib.GenericContainer(POSTGRES).withEnvironment({POSTGRES_PASSWORD: 'test', POSTGRES_DB: 'app'}).withExposedPorts(5432)
      .withCopyContentToContainer([{content: 'CREATE TABLE whales (name text)', target: '/docker-entrypoint-initdb.d/1.sql'}])
      .withWaitStrategy(lib.Wait.forAll([lib.Wait.forListeningPorts(), lib.Wait.forLogMessage(/database system is ready to accept connections/, 2)])).start();
    const client = new Client({host: postgres.getHost(), port: postgres.getMappedPort(5432), user: 'postgres', password: 'test', database: 'app'});
    await client.connect();
    await client.query("INSERT INTO whales VALUES ('cetus')");
    expect((await client.query('SELECT name FROM whales')).rows).toEqual([{name: 'cetus'}]);
    await client.end();
    await postgres.stop();
    // Its anonymous volume goes with it.
    expect(await dc.ok(['volume', 'ls', '-q'])).toBe('');
  });
});

test('networks: by alias and by name, from one container to the other', async () => {
  const network = await new lib.Network().start();
  const server = await new lib.GenericContainer(NGINX).withNetwork(network).withNetworkAliases('site', 'mirror').withName('named-site').start();
  const client = await new lib.GenericContainer('busybox').withNetwork(network).withCommand(['sleep', '1000']).start();
  for (const name of ['site', 'mirror', 'named-site']) expect((await client.exec(['wget', '-qO-', `http://${name}/`])).stdout).toMatch(/Welcome to nginx/);
  // One with aliases is connected by the library after it was created on the default one.
  expect(server.getNetworkNames()).toEqual(['bridge', network.getName()]);
  expect(client.getNetworkNames()).toEqual([network.getName()]);
  expect(server.getIpAddress(network.getName())).toMatch(/^\d+\./);
  await Promise.all([server, client].map((c) => c.stop({timeout: 0})));
  await network.stop();
  expect(await dc.ok(['network', 'ls', '-q', '--filter', `name=${network.getName()}`])).toBe('');
});

test('copying: files, directories, contents and archives, before and after the start; and out again', async () => {
  const from = path.join(dc.dataDir, 'copied');
  fs.mkdirSync(path.join(from, 'directory', 'deep'), {recursive: true});
  fs.writeFileSync(path.join(from, 'file'), 'a file\n');
  fs.writeFileSync(path.join(from, 'directory', 'deep', 'inner'), 'from a directory\n');
  const archive = (name: string): Readable => {
    const pack = tar.pack();
    pack.entry({name}, 'from an archive\n');
    pack.finalize();
    return pack as unknown as Readable;
  };
  const box = await new lib.GenericContainer('busybox').withCommand(['sleep', '1000'])
    .withCopyFilesToContainer([{source: path.join(from, 'file'), target: '/in/file', mode: 0o640}])
    .withCopyDirectoriesToContainer([{source: path.join(from, 'directory'), target: '/in/directory'}])
    .withCopyContentToContainer([{content: 'a content\n', target: '/in/content', mode: 0o600}])
    .withCopyArchivesToContainer([{tar: archive('packed'), target: '/home'}]).start();
  expect((await box.exec(['sh', '-c', 'cat /in/file /in/directory/deep/inner /in/content /home/packed; stat -c %a /in/file /in/content'])).stdout).toBe('a file\nfrom a directory\na content\nfrom an archive\n640\n600\n');
  await box.copyFilesToContainer([{source: path.join(from, 'file'), target: '/later/file'}]);
  await box.copyDirectoriesToContainer([{source: path.join(from, 'directory'), target: '/later'}]);
  await box.copyContentToContainer([{content: Buffer.from([0, 255, 10]), target: '/later/bytes'}]);
  await box.copyArchiveToContainer(archive('unpacked'), '/later');
  expect((await box.exec(['sh', '-c', 'cat /later/file /later/deep/inner /later/unpacked; wc -c < /later/bytes'])).stdout).toBe('a file\nfrom a directory\nfrom an archive\n3\n');
  expect(await filesOf(await box.copyArchiveFromContainer('/in'))).toEqual({'in/file': 'a file\n', 'in/directory/deep/inner': 'from a directory\n', 'in/content': 'a content\n'});
  const stopped = await box.stop({remove: false, timeout: 0});
  expect(await filesOf(await stopped.copyArchiveFromContainer('/home/packed'))).toEqual({packed: 'from an archive\n'});
  await dc.ok(['rm', '-f', stopped.getId()]);
});

test('from a Dockerfile, with build arguments', async () => {
  const context = path.join(dc.dataDir, 'dockerfile');
  fs.mkdirSync(context);
  fs.writeFileSync(path.join(context, 'Dockerfile'), 'FROM busybox\nARG WORD\nRUN echo $WORD > /word\nCOPY whale /whale\nCMD ["sleep", "1000"]\n');
  fs.writeFileSync(path.join(context, 'whale'), 'cetus\n');
  const built = await lib.GenericContainer.fromDockerfile(context).withBuildArgs({WORD: 'spoken'}).build('tc/built:1', {deleteOnExit: false});
  const box = await built.start();
  expect((await box.exec(['cat', '/word', '/whale'])).stdout).toBe('spoken\ncetus\n');
  await box.stop({timeout: 0});
});

test('reuse: the same request finds the container that runs; another makes another', async () => {
  const request = (color: string): import('testcontainers').GenericContainer => new lib.GenericContainer(NGINX).withExposedPorts(80).withEnvironment({COLOR: color}).withReuse();
  const first = await request('red').start();
  const again = await request('red').start();
  const other = await request('blue').start();
  expect(again.getId()).toBe(first.getId());
  expect(again.getMappedPort(80)).toBe(first.getMappedPort(80));
  expect(other.getId()).not.toBe(first.getId());
  await Promise.all([first, other].map((c) => c.stop({timeout: 0})));
});

/** A test run of its own, which ends by `end` without having stopped anything. */
const RUN = `
  const {GenericContainer, Network} = require('testcontainers');
  (async () => {
    const network = await new Network().start();
    const box = await new GenericContainer('busybox').withCommand(['sleep', '1000']).withNetwork(network).start();
    await new GenericContainer('${REDIS}').start();
    const bystander = await new GenericContainer('busybox').withCommand(['sleep', '1000']).withReuse().start();
    console.log(JSON.stringify({session: box.getLabels()['org.testcontainers.session-id'], bystander: bystander.getId()}));
    setInterval(() => undefined, 1000);
  })().catch((err) => { console.error(err); process.exit(1); });`;

test('the reaper removes what a test run that was killed has left, and only that; then it goes itself', async () => {
  const env = {...process.env, TESTCONTAINERS_RYUK_DISABLED: 'false', RYUK_CONTAINER_IMAGE: REAPER, TESTCONTAINERS_RYUK_RECONNECTION_TIMEOUT: '1s', TMPDIR: fs.mkdtempSync(path.join(dc.dataDir, 'run-'))};
  const child = spawn(process.execPath, ['-e', RUN], {env, stdio: ['ignore', 'pipe', 'pipe']});
  runs.push(child);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (c: string) => { said += c; });
  const {session, bystander} = await until('the run to have made its containers', () => {
    if (child.exitCode !== null) throw new Error(said);
    return /^\{.*\}$/m.exec(said) && JSON.parse(/^\{.*\}$/m.exec(said)![0]) as {session: string; bystander: string};
  });
  const mine = `label=org.testcontainers.session-id=${session}`;
  expect((await names(mine)).length).toBeGreaterThanOrEqual(3);
  expect(await dc.ok(['network', 'ls', '-q', '--filter', mine])).not.toBe('');
  child.kill('SIGKILL');
  await until('all of the session to be removed, the reaper last', async () => (await names(mine)).length === 0 && (await dc.ok(['network', 'ls', '-q', '--filter', mine])) === '');
  expect(await dc.ok(['inspect', '-f', '{{.State.Running}}', bystander])).toBe('true');
  await dc.ok(['rm', '-f', bystander]);
});
