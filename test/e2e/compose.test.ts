/**
 * docker-compose 1.29, the distribution's, with a project of real services (test/harness/shop): nginx before an application, PostgreSQL and Redis.
 * The tests are one story in order: the project is up after the first and gone after the last.
 */
import {type ChildProcess, spawn} from 'node:child_process';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import {Client} from 'pg';
import {type Finished, run, type RunOptions} from '../harness/cetus';
import {freePort} from '../harness/ports';
import {NGINX, POSTGRES, REDIS, servicesArchive} from '../harness/services';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

const PROJECT = path.resolve(__dirname, '../harness/shop/docker-compose.yml');
let port = 0;
const watching: ChildProcess[] = [];
const dc = datacenterWithBusybox({
  prepare: async () => {
    port = await freePort();
    await dc.ok(['load', '-q', '-i', servicesArchive()], {timeoutMs: 120_000});
  },
  cleanUp: async () => {
    for (const child of watching) child.kill('SIGKILL');
    await compose(['down', '-v', '-t', '1']);
  },
});

const env = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  ...process.env, DOCKER_HOST: dc.host, COMPOSE_PROJECT_NAME: 'shop', COMPOSE_FILE: PROJECT, SHOP_PORT: String(port), COMPOSE_INTERACTIVE_NO_CLI: '1', DOCKER_CONFIG: path.join(dc.dataDir, 'docker-config'), ...more,
});
const compose = (args: string[], options: RunOptions = {}): Promise<Finished> => run('docker-compose', ['--ansi', 'never', ...args], {timeoutMs: 150_000, ...options, env: env(options.env)});
async function ok(args: string[], options: RunOptions = {}): Promise<string> {
  const done = await compose(args, options);
  if (done.status !== 0) throw new Error(`docker-compose ${args.join(' ')} ended with ${done.status}\n${done.stdout}\n${done.stderr}`);
  return done.stdout.trim();
}
/** A client that stays: what it has printed so far, and an end to it. */
function watch(args: string[]): {seen(): string; end(): void} {
  const child = spawn('docker-compose', ['--ansi', 'never', ...args], {env: env({PYTHONUNBUFFERED: '1'}), stdio: ['ignore', 'pipe', 'pipe']});
  watching.push(child);
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (c: string) => { text += c; });
  return {seen: () => text, end: () => void child.kill('SIGINT')};
}
const lines = (text: string): string[] => text.split('\n').map((l) => l.trim()).filter(Boolean);
const inspect = async <T>(service: string, format: string): Promise<T> => JSON.parse(await dc.ok(['inspect', '-f', `{{json ${format}}}`, `shop_${service}_1`])) as T;
const published = async (inside: number): Promise<number> => Number((await ok(['port', 'web', String(inside)])).split(':')[1]);

function get(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    http.get(`http://127.0.0.1:${port}${url}`, {agent: false, timeout: 20_000}, (res) => {
      let text = '';
      res.setEncoding('utf8').on('data', (c: string) => { text += c; }).on('end', () => (res.statusCode === 200 ? resolve(text.trim()) : reject(new Error(`${res.statusCode} ${text}`))));
    }).on('error', reject);
  });
}
/** Through the gateway's published port, by the name `database` that only nginx resolves. */
async function sql<T>(text: string): Promise<T[]> {
  const client = new Client({host: '127.0.0.1', port: await published(5432), user: 'shop', password: 'not-a-secret', database: 'shop', connectionTimeoutMillis: 20_000});
  await client.connect();
  try {
    return (await client.query(text)).rows as T[];
  } finally {
    await client.end();
  }
}
async function redis(command: string): Promise<string> {
  const at = await published(6379);
  return new Promise((resolve, reject) => {
    const socket = net.connect(at, '127.0.0.1', () => socket.write(`${command}\r\n`));
    socket.setTimeout(20_000, () => socket.destroy(new Error(`redis does not answer ${command}`)));
    socket.once('data', (reply: Buffer) => { socket.destroy(); resolve(reply.toString().trim()); }).once('error', reject);
  });
}

test('config: what the file means, and what is wrong with one', async () => {
  expect(lines(await ok(['config', '--services'])).sort()).toEqual(['app', 'cache', 'db', 'report', 'web']);
  expect(lines(await ok(['config', '--volumes'])).sort()).toEqual(['cache', 'data']);
  expect(await ok(['config'])).toContain(`127.0.0.1:${port}:80/tcp`);
});

test('up -d: the gateway waits until database and cache are healthy; then it reaches them by name', async () => {
  await ok(['up', '-d']);
  const [db, cache] = await Promise.all(['db', 'cache'].map((s) => inspect<{Health: {Status: string; Log: {End: string; ExitCode: number}[]}}>(s, '.State')));
  expect([db!.Health.Status, cache!.Health.Status]).toEqual(['healthy', 'healthy']);
  expect(Date.parse(await inspect('web', '.State.StartedAt'))).toBeGreaterThan(Date.parse(db!.Health.Log.find((l) => l.ExitCode === 0)!.End));
  const table = await ok(['ps']);
  expect(table).toMatch(/shop_cache_1 .* Up \(healthy\) +6379\/tcp/);
  expect(table).toMatch(/shop_db_1 .* Up \(healthy\) +5432\/tcp/);
  expect(table).toMatch(new RegExp(`shop_web_1 .* Up .*127\\.0\\.0\\.1:${port}->80/tcp`));
  expect(await get('/health')).toBe('well');
  expect(await get('/')).toBe(await inspect('app', '.Config.Hostname'));
  expect(await sql('SELECT name, pieces FROM goods ORDER BY name')).toEqual([{name: 'krill', pieces: 1_000_000}, {name: 'whale', pieces: 1}]);
  expect(await redis('SET visits 41')).toBe('+OK');
  expect(await redis('INCR visits')).toBe(':42');
});

test('up again changes nothing', async () => {
  const before = await dc.ok(['ps', '-aq', '--no-trunc']);
  const again = await compose(['up', '-d']);
  expect(again.stderr).toMatch(/shop_web_1 is up-to-date/);
  expect(await dc.ok(['ps', '-aq', '--no-trunc'])).toBe(before);
});

test('networks: the back one has no way out, and who is not on it is not found there', async () => {
  expect(JSON.parse(await dc.ok(['network', 'inspect', 'shop_back']))[0]).toMatchObject({Internal: true, Labels: {'shop.tier': 'back', 'com.docker.compose.network': 'back'}});
  expect((await compose(['exec', '-T', 'db', 'getent', 'hosts', 'app'])).status).toBe(2);
  expect(await ok(['exec', '-T', 'db', 'getent', 'hosts', 'cache'])).toMatch(/^[\d.]+ +cache/);
  expect((await compose(['exec', '-T', 'db', 'timeout', '20', 'bash', '-c', `echo > /dev/tcp/${new URL(dc.running.listen[0]!).hostname}/${port}`])).status).not.toBe(0);
});

// The limits are those of the container's own process: to an exec, runc 1.1.5 as Debian now builds it gives the hard limit as the soft one too (40 of 40).
test('options of the file hold', async () => {
  expect(await ok(['exec', '-T', 'db', 'sh', '-c', 'df -k /dev/shm | tail -1; grep "open files" /proc/1/limits; ulimit -Hn'])).toMatch(/98304[\s\S]*\nMax open files +4096 +8192 +files *\n8192$/);
  expect(await ok(['exec', '-T', 'cache', 'sh', '-c', 'df -k /scratch | tail -1'])).toMatch(/\b1024\b/);
  expect(await inspect('cache', '.HostConfig')).toMatchObject({Memory: 256 << 20, NanoCpus: 800_000_000, CapDrop: ['NET_RAW']});
  expect(await inspect('web', '.HostConfig.RestartPolicy.Name')).toBe('unless-stopped');
});

test('exec -T: arguments, user, environment, exit code; and the stock client beneath when compose calls it', async () => {
  expect(await ok(['exec', '-T', 'db', 'psql', '-U', 'shop', '-Atc', "UPDATE goods SET pieces = 2 WHERE name = 'whale' RETURNING pieces"])).toMatch(/^2/);
  // What compose itself reads of an exec, it prints as one.
  expect((await compose(['exec', '-T', 'cache', 'sh', '-c', 'echo gone wrong >&2; exit 7']))).toMatchObject({status: 7, stdout: 'gone wrong\n'});
  expect(await ok(['exec', '-T', '-u', 'redis', '-e', 'A=b', '-w', '/tmp', 'cache', 'sh', '-c', 'id -un; echo $A; pwd'])).toBe('redis\nb\n/tmp');
  expect(await ok(['exec', '-T', 'db', 'psql', '-U', 'shop', '-At'], {input: 'SELECT count(*) FROM goods;\n', env: {COMPOSE_INTERACTIVE_NO_CLI: undefined}})).toBe('2');
});

test('build, and run --rm of what was built: its answer, its exit code, and nothing of it afterwards', async () => {
  // Built by compose itself; else it calls the machine's client, whichever that is. Run by that one: compose's own way attaches after the start
  // (it was written for a map() that was not lazy yet), and waits for ever where the container was quicker.
  const env = {COMPOSE_DOCKER_CLI_BUILD: '0', COMPOSE_INTERACTIVE_NO_CLI: undefined};
  expect(await ok(['build', 'report'], {env})).toMatch(/Step 6\/6 : ENTRYPOINT[\s\S]*Successfully tagged shop_report:latest/);
  expect(await ok(['build', 'report'], {env})).toMatch(/Using cache/);
  expect(await ok(['run', '--rm', '-T', 'report'], {env})).toBe('stock: 2 goods, 1000002 pieces');
  expect(await ok(['run', '--rm', '-T', '-e', 'PGAPPNAME=other', '--entrypoint', 'sh', 'report', '-c', 'echo $TITLE $PGAPPNAME'], {env})).toBe('stock other');
  expect((await compose(['run', '--rm', '-T', '--no-deps', '--entrypoint', 'sh', 'report', '-c', 'exit 3'], {env})).status).toBe(3);
  expect(lines(await dc.ok(['ps', '-a', '--format', '{{.Names}}'])).sort()).toEqual(['shop_app_1', 'shop_cache_1', 'shop_db_1', 'shop_web_1']);
});

test('scale: three copies have one name; the gateway finds them all after its signal; and down to one again', async () => {
  await ok(['up', '-d', '--scale', 'app=3', '--no-recreate']);
  const names = await Promise.all([1, 2, 3].map((n) => dc.ok(['inspect', '-f', '{{.Config.Hostname}}', `shop_app_${n}`])));
  await until('the name to have three addresses', async () => new Set(lines(await ok(['exec', '-T', 'web', 'getent', 'ahostsv4', 'app'])).map((l) => l.split(/\s+/)[0])).size === 3);
  await ok(['kill', '-s', 'HUP', 'web']);
  const answered = new Set<string>();
  await until('each copy to answer', async () => answered.add(await get('/')).size === 3);
  expect([...answered].sort()).toEqual(names.sort());
  await compose(['scale', 'app=1']);
  expect(lines(await ok(['ps', '-q', 'app']))).toHaveLength(1);
  await ok(['kill', '-s', 'HUP', 'web']);
  await until('the gateway to know', async () => (await get('/')) === (await inspect('app', '.Config.Hostname')));
});

test('logs, whole and followed; events; top, port, images', async () => {
  const [logs, events] = [watch(['logs', '-f', '--tail', '1', 'web', 'app']), watch(['events', '--json', 'app'])];
  await until('both services to be followed', async () => {
    await get('/?followed=yes');
    return /web_1 +\| .*GET \/\?followed=yes/.test(logs.seen()) && /app_1 +\| .*GET \/\?followed=yes/.test(logs.seen());
  });
  await until('the events of a restart', async () => {
    await ok(['restart', '-t', '1', 'app']);
    const actions = lines(events.seen()).filter((l) => l.startsWith('{')).map((l) => JSON.parse(l) as {service: string; action: string});
    return actions.every((e) => e.service === 'app') && ['die', 'start', 'restart'].every((a) => actions.some((e) => e.action === a));
  });
  await until('the log to go on with the next process', async () => {
    await get('/?restarted=yes').catch(() => undefined);
    return /app_1 +\| [\s\S]*shop_app_1 exited with code 0[\s\S]*app_1 +\| .*GET \/\?restarted=yes/.test(logs.seen());
  });
  logs.end();
  events.end();
  expect(await ok(['logs', '--no-color', 'db'])).toMatch(/the cluster is made; PostgreSQL starts/);
  expect(await ok(['logs', '-t', '--tail', '2', 'cache'])).toMatch(/cache_1 +\| \d{4}-\d\d-\d\dT[\d:.]+Z /);
  expect(await ok(['top', 'cache'])).toMatch(/shop_cache_1[\s\S]*UID +PID +PPID[\s\S]*redis-server \*:6379/);
  expect(await ok(['port', 'web', '80'])).toBe(`127.0.0.1:${port}`);
  const images = await ok(['images']);
  for (const [service, image] of [['web', NGINX], ['db', POSTGRES], ['cache', REDIS]] as const) expect(images).toMatch(new RegExp(`shop_${service}_1 +${image.replace(':', ' +')} +[0-9a-f]{12} +[\\d.]+ MB`));
});

test('pause, unpause, stop, start, kill', async () => {
  await ok(['pause', 'cache']);
  expect(await ok(['ps', 'cache'])).toMatch(/shop_cache_1 .* Paused/);
  await ok(['unpause', 'cache']);
  expect(await redis('GET visits')).toContain('42');
  await ok(['stop', '-t', '20', 'db']);
  expect(await ok(['ps', 'db'])).toMatch(/shop_db_1 .* Exit 0/);
  await ok(['start', 'db']);
  await until('the database to be back under its name', async () => (await sql('SELECT 1 AS one'))[0]);
  await ok(['kill', 'app']);
  expect(await ok(['ps', 'app'])).toMatch(/shop_app_1 .* Exit 137/);
  await ok(['start', 'app']);
  await ok(['restart', '-t', '5', 'web']);
  await until('the gateway', async () => (await get('/')).length > 0);
});

test('another value for one service makes that one anew, with its volume', async () => {
  const before = lines(await dc.ok(['ps', '-q', '--no-trunc']));
  await ok(['up', '-d'], {env: {SHOP_EVICTION: 'allkeys-lru'}});
  const after = lines(await dc.ok(['ps', '-q', '--no-trunc']));
  // The gateway depends on it, and compose makes dependents anew, too.
  expect(before.filter((id) => after.includes(id)).length).toBeGreaterThanOrEqual(2);
  expect(await ok(['exec', '-T', 'cache', 'redis-cli', 'config', 'get', 'maxmemory-policy'])).toContain('allkeys-lru');
  await until('the cache behind the gateway', async () => (await redis('GET visits')).includes('42'));
});

test('down keeps volumes, and the next up finds what is in them; down -v leaves nothing', async () => {
  await ok(['down', '-t', '20']);
  expect(await dc.ok(['ps', '-aq'])).toBe('');
  expect(lines(await dc.ok(['network', 'ls', '--format', '{{.Name}}'])).sort()).toEqual(['bridge', 'host', 'none']);
  expect(lines(await dc.ok(['volume', 'ls', '-q'])).sort()).toEqual(['shop_cache', 'shop_data']);
  await ok(['up', '-d']);
  expect(await sql("SELECT pieces FROM goods WHERE name = 'whale'")).toEqual([{pieces: 2}]);
  expect(await redis('GET visits')).toContain('42');
  await ok(['down', '-v', '-t', '20']);
  expect(await dc.ok(['ps', '-aq'])).toBe('');
  expect(await dc.ok(['volume', 'ls', '-q'])).toBe('');
  expect(lines(await dc.ok(['network', 'ls', '--format', '{{.Name}}'])).sort()).toEqual(['bridge', 'host', 'none']);
});
