/** docker build with both builders: the newest client (classic), Debian's (BuildKit without a plugin), buildx' control API, and contexts that mean ill. */
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import {type Finished, run} from '../harness/cetus';
import {BuildControl} from '../harness/buildkit';
import {buildImage, busyboxLayer, pushImage, tarOf, type LayerEntry} from '../harness/images';
import {processesOf} from '../harness/leaks';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {datacenterWithBusybox} from '../harness/suite';
import {until} from '../harness/wait';

let registry: TestRegistry;
const dc = datacenterWithBusybox({
  prepare: async () => { registry = await startRegistry(); },
  cleanUp: async () => registry?.stop(),
});

/** Debian's client, which has BuildKit in it. */
const DEBIANS = '/usr/bin/docker';

let contexts = 0;
function context(files: Record<string, string>): string {
  const dir = path.join(dc.dataDir, `context-${contexts += 1}`);
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(dir, name)), {recursive: true});
    fs.writeFileSync(path.join(dir, name), text);
  }
  return dir;
}

async function ok(finished: Promise<Finished>): Promise<string> {
  const done = await finished;
  if (done.status !== 0) throw new Error(`a build ended with ${done.status}\n${done.stdout}\n${done.stderr}`);
  return `${done.stdout}\n${done.stderr}`;
}
const classic = (args: string[], env: NodeJS.ProcessEnv = {}): Promise<Finished> => dc.docker(['build', ...args], {env: {DOCKER_BUILDKIT: '0', ...env}});
const buildkit = (args: string[]): Promise<Finished> => run(DEBIANS, ['build', '--progress', 'plain', ...args], {env: {...process.env, DOCKER_HOST: dc.host, DOCKER_BUILDKIT: '1', DOCKER_CONFIG: path.join(dc.dataDir, 'docker-config')}});
const inspect = async <T>(name: string, format = '{{json .}}'): Promise<T> => JSON.parse(await dc.ok(['image', 'inspect', '-f', format, name])) as T;

const EVERYTHING = `ARG BASE=nothing
FROM \${BASE} AS first
RUN echo made > /made
FROM busybox
MAINTAINER somebody
ARG GREETING=none
ENV GREETING=$GREETING PLACE=/srv
LABEL one=1
WORKDIR $PLACE
COPY --from=first /made .
COPY --chown=7:8 a.txt b*.txt ./
ADD packed.tar /unpacked/
SHELL ["/bin/sh", "-ec"]
RUN echo $GREETING > greeting; stat -c %u:%g a.txt > owner
EXPOSE 80/tcp
VOLUME /data
USER 7
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5m CMD true
ONBUILD RUN echo triggered > /tmp/triggered
ENTRYPOINT ["sh", "-c"]
CMD ["cat made greeting owner /unpacked/inner; ls"]
`;

test('classic: every instruction, build arguments, .dockerignore, cache, history', async () => {
  const dir = context({Dockerfile: EVERYTHING, 'a.txt': 'a', 'b1.txt': 'b', 'b2.txt': 'no', '.dockerignore': 'b2*\n'});
  fs.writeFileSync(path.join(dir, 'packed.tar'), await tarOf([{name: 'inner', content: 'inner\n'}]));
  const args = ['-t', 'every:1', '-t', 'other', '--build-arg', 'BASE=busybox', '--build-arg', 'GREETING=hello', '--label', 'two=2', dir];
  const printed = await ok(classic(args));
  const image = await inspect<{Id: string; RepoTags: string[]; Config: Record<string, unknown>}>('every:1');
  expect(printed).toContain(`Successfully built ${image.Id.slice(7, 19)}`);
  expect(printed).toContain('Successfully tagged every:1');
  expect(image.RepoTags.sort()).toEqual(['every:1', 'other:latest']);
  expect(image.Config).toMatchObject({
    User: '7', WorkingDir: '/srv', Entrypoint: ['sh', '-c'], ExposedPorts: {'80/tcp': {}}, Volumes: {'/data': {}}, StopSignal: 'SIGINT', Labels: {one: '1', two: '2'},
    OnBuild: ['RUN echo triggered > /tmp/triggered'], Shell: ['/bin/sh', '-ec'], Healthcheck: {Test: ['CMD-SHELL', 'true']},
  });
  expect((await dc.ok(['run', '--rm', 'every:1'])).split('\n')).toEqual(['made', 'hello', '7:8', 'inner', 'a.txt', 'b1.txt', 'greeting', 'made', 'owner']);
  expect(await dc.ok(['history', '--format', '{{.CreatedBy}}', 'every:1'])).toMatch(/CMD \["cat made.*\n[^]*STOPSIGNAL SIGINT/);

  const again = await ok(classic(args));
  expect(again.match(/Using cache/g)!.length).toBeGreaterThan(15);
  expect(again).toContain(`Successfully built ${image.Id.slice(7, 19)}`);
  // Quiet prints the id and nothing else.
  const quiet = await classic(['-q', ...args.slice(4)]);
  expect(quiet.stdout.trim()).toBe(image.Id);
});

test('FROM finds what exists only here: as it is now, and not once it is gone', async () => {
  const base = '127.0.0.1:1/only/here:1';
  const make = (text: string): Promise<string> => ok(classic(['-t', base, context({Dockerfile: `FROM busybox\nLABEL text=${text}\n`})]));
  const above = (): Promise<Finished> => classic(['-t', 'above', context({Dockerfile: `FROM ${base}\nLABEL above=1\n`})]);
  const label = (): Promise<string> => inspect<string>('above', '{{json .Config.Labels.text}}');
  await make('first');
  await ok(above());
  expect(await label()).toBe('first');
  // Moved by a tag, not by a build: the engine learns of it from us alone.
  await ok(classic(['-t', 'second', context({Dockerfile: 'FROM busybox\nLABEL text=second\n'})]));
  await dc.ok(['tag', 'second', base]);
  await ok(above());
  expect(await label()).toBe('second');
  expect(await ok(buildkit(['-t', 'above', context({Dockerfile: `ARG X=${base}\nFROM $X\n`})]))).toContain(`FROM ${base}`);
  await dc.ok(['rmi', base]);
  expect((await above()).stderr).toMatch(/connection refused|No such image|not found/);
});

test('FROM takes from a registry what is not here, which then is', async () => {
  await pushImage(registry.url, 'tools/base', ['v1'], buildImage([await busyboxLayer()]));
  const base = `${registry.host}/tools/base:v1`;
  await ok(classic(['-t', 'based', context({Dockerfile: `FROM ${base}\nLABEL based=1\n`})]));
  expect(await dc.ok(['run', '--rm', 'based', 'echo', 'runs'])).toBe('runs');
  expect(await inspect<string[]>(base, '{{json .RepoDigests}}')).toEqual([expect.stringMatching(`^${registry.host}/tools/base@sha256:`)]);
});

test('BuildKit: secrets, cache mounts, targets, a result without a name; its cache is shown and pruned', async () => {
  const dir = context({
    Dockerfile: `FROM busybox AS one
RUN --mount=type=secret,id=word cat /run/secrets/word > /word
FROM one AS two
COPY . /src/
RUN --mount=type=cache,target=/cache echo kept >> /cache/file; cat /cache/file > /cached; ls /src > /list
FROM two AS three
RUN false
`, word: 'open sesame', 'kept.txt': '', 'left.txt': '', '.dockerignore': 'left*\nDockerfile\nword\n.dockerignore\n',
  });
  const printed = await ok(buildkit(['-t', 'kit', '--target', 'two', '--secret', `id=word,src=${path.join(dir, 'word')}`, dir]));
  const id = await inspect<string>('kit', '{{json .Id}}');
  expect(printed).toContain(`writing image ${id}`);
  expect(await dc.ok(['run', '--rm', 'kit', 'cat', '/word', '/cached', '/list'])).toBe('open sesamekept\nkept.txt');
  const failed = await buildkit([dir, '--secret', `id=word,src=${path.join(dir, 'word')}`]);
  expect(failed.status).not.toBe(0);
  expect(failed.stderr).toMatch(/executor failed running \[\/bin\/sh -c false\]: exit code: 1/);
  const quiet = await run(DEBIANS, ['build', '-q', '--target', 'one', '--secret', `id=word,src=${path.join(dir, 'word')}`, dir], {env: {...process.env, DOCKER_HOST: dc.host, DOCKER_BUILDKIT: '1'}});
  expect(await inspect<string[]>(quiet.stdout.trim(), '{{json .RepoTags}}')).toEqual([]);

  const cache = async (): Promise<{Size: number}[]> => (await (await fetch(`${dc.host.replace('tcp:', 'http:')}/system/df?type=build-cache`)).json() as {BuildCache: {Size: number}[]}).BuildCache;
  // Also where several ask at once, which the engine itself refuses.
  expect((await Promise.all(Array.from({length: 8}, cache))).filter((found) => found?.length > 3)).toHaveLength(8);
  expect(await dc.ok(['builder', 'prune', '-af'])).toMatch(/Total reclaimed space|Total:/);
  expect(await cache()).toEqual([]);
  // What was built stands on its own.
  expect(await dc.ok(['run', '--rm', 'kit', 'cat', '/cached'])).toBe('kept');
});

test('the control API that buildx speaks: what it solves is here when it has answered', async () => {
  const bytes = await tarOf([{name: 'Dockerfile', content: 'FROM busybox\nRUN echo controlled > /file\n'}]);
  const server = http.createServer((_request, answer) => answer.setHeader('content-type', 'application/x-tar').end(bytes)).listen(0, '127.0.0.1');
  const control = await BuildControl.open(dc.running.listen[0]!);
  try {
    const url = await until('the server of a context', () => server.address() as {port: number} | null);
    expect((await control.call('ListWorkers')).body.toString('latin1')).toContain('linux');
    const solved = await control.solve(`http://127.0.0.1:${url.port}/context.tar`, {name: 'docker.io/library/controlled:1'});
    expect(solved).toMatchObject({status: '0'});
    const id = await inspect<string>('controlled:1', '{{json .Id}}');
    expect(solved.body.toString('latin1')).toContain(id);
    expect(await dc.ok(['run', '--rm', 'controlled:1', 'cat', '/file'])).toBe('controlled');
    // Without a name, out of the cache: the same image, and an error is the engine's own.
    expect((await control.solve(`http://127.0.0.1:${url.port}/context.tar`, {})).body.toString('latin1')).toContain(id);
    expect(await control.solve('http://127.0.0.1:1/context.tar', {})).toMatchObject({status: expect.not.stringMatching(/^0$/) as string, message: expect.stringContaining('refused') as string});
  } finally {
    control.close();
    server.close();
  }
});

/** POST /build as it is, with whatever is in the tar. */
async function post(query: string, body: Buffer | string, signal?: AbortSignal): Promise<{status: number; text: string}> {
  const answer = await fetch(`${dc.host.replace('tcp:', 'http:')}/build?${query}`, {method: 'POST', headers: {'content-type': 'application/x-tar'}, body: body as never, signal});
  return {status: answer.status, text: await answer.text()};
}
const tar = (dockerfile: string, more: LayerEntry[] = []): Promise<Buffer> => tarOf([{name: 'Dockerfile', content: dockerfile}, ...more]);

test('contexts that mean ill reach nothing outside, and break nothing', async () => {
  const outside = path.join(dc.dataDir, 'outside');
  fs.writeFileSync(outside, 'secret of the node');
  const link = await post('t=ill', await tar('FROM busybox\nCOPY link /got\n', [{name: 'link', type: 'symlink', linkname: outside}]));
  expect(link.text).toMatch(/error/);
  expect(link.text).not.toContain('secret of the node');
  const climb = await post('t=ill', await tar('FROM busybox\n', [{name: '../../../../../../../../../../tmp/cetus-climbed', content: 'x'}]));
  expect(`${climb.status} ${climb.text}`).toMatch(/breakout|outside|Successfully built/);
  expect(fs.existsSync('/tmp/cetus-climbed')).toBe(false);
  const hard = await post('t=ill', await tar('FROM busybox\nCOPY hard /got\n', [{name: 'hard', type: 'link', linkname: outside}]));
  expect(hard.text).not.toContain('secret of the node');

  const good = await tar('FROM busybox\n');
  expect(await post('', good.subarray(0, 520))).toMatchObject({status: expect.any(Number) as number, text: expect.stringMatching(/unexpected EOF|Cannot locate/) as string});
  const giant = Buffer.from(good);
  // The size field says 8 GiB, where a few bytes follow.
  giant.write('77777777777\0', 124, 'latin1');
  let sum = 0;
  giant.fill(' ', 148, 156);
  for (let i = 0; i < 512; i += 1) sum += giant[i]!;
  giant.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  expect((await post('', giant)).text).toMatch(/unexpected EOF|error/i);
  expect(await post('', 'no tar at all')).toMatchObject({status: expect.any(Number) as number, text: expect.stringMatching(/message|error/) as string});
  expect(await post('', await tar('SOMETHING strange\n'))).toMatchObject({status: 400, text: expect.stringMatching(/unknown instruction: SOMETHING/i) as string});
  expect(await post('', await tar(''))).toMatchObject({status: 400, text: expect.stringContaining('cannot be empty') as string});
  expect((await post('', await tar(`FROM busybox\n# ${'x'.repeat(70_000)}\n`))).text).toMatch(/line greater than max allowed size/);
  expect(await post('dockerfile=../../../etc/passwd', good)).toMatchObject({text: expect.stringMatching(/cannot locate specified Dockerfile|forbidden path outside/i) as string});
  for (const [query, word] of [['networkmode=container:x', 'network mode'], ['cgroupparent=/x', 'cgroupparent'], ['squash=1', 'squash'], ['t=UPPER', 'repository name must be lowercase'], ['buildargs=nonsense', 'build']] as const)
    expect(await post(query, good)).toMatchObject({status: 400, text: expect.stringContaining(word) as string});
});

test('hanging up ends the build; builds run side by side; a killed agent leaves no engine', async () => {
  const stop = new AbortController();
  const seconds = '4242.5';
  const hung = post('t=hung', await tar(`FROM busybox\nRUN sleep ${seconds}\n`), stop.signal).catch(() => undefined);
  const sleepers = (argument: string): string[] => fs.readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && fs.existsSync(`/proc/${pid}/cmdline`) && read(`/proc/${pid}/cmdline`).split('\0').includes(argument));
  await until('the step to run', () => sleepers(seconds).length > 0);
  const beside = Promise.all([1, 2].map((n) => ok(classic(['-t', `beside:${n}`, context({Dockerfile: `FROM busybox\nRUN echo ${n} > /n\n`})]))));
  await beside;
  stop.abort();
  await hung;
  await until('the step to end', () => sleepers(seconds).length === 0);
  expect(await dc.ok(['run', '--rm', 'beside:2', 'cat', '/n'])).toBe('2');
  expect((await dc.docker(['image', 'inspect', 'hung'])).status).toBe(1);

  const engines = (): string[] => processesOf(dc.dataDir).filter((line) => / \S*dockerd /.test(line));
  expect(engines().length).toBeGreaterThan(0);
  // With whose engine that is: the first node's have all builds of an account, but nobody has to know.
  const agents = dc.parts('agent');
  const lost = post('t=lost', await tar('FROM busybox\nRUN sleep 4242.75\n')).catch(() => undefined);
  await until('the other step to run', () => sleepers('4242.75').length > 0);
  const deaths = Promise.all(agents.map((agent) => dc.kill(agent)));
  await until('the engine to end with its agent', () => engines().length === 0 && sleepers('4242.75').length === 0);
  await lost;
  await deaths;
  expect(await ok(classic(['-t', 'beside:1', context({Dockerfile: 'FROM busybox\nRUN echo 1 > /n\n'})]))).toContain('Using cache');
});

test('events tell what was built', async () => {
  const since = String(Date.now() / 1000);
  await ok(classic(['-t', 'told', context({Dockerfile: `FROM busybox\nLABEL when=${since}\n`})]));
  const told = await dc.ok(['events', '--since', since, '--until', String(Date.now() / 1000 + 0.5), '--filter', 'type=image', '--format', '{{.Action}} {{index .Actor.Attributes "name"}}']);
  expect(told.split('\n')).toEqual([expect.stringMatching(/^create sha256:/), 'tag told:latest']);
});

function read(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
