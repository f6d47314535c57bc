/** dockerode, the SDK that most programs in Node use: its streams, its demultiplexing, its hijacked connections. */
import fs from 'node:fs';
import {PassThrough, Readable} from 'node:stream';
import {buffer, text} from 'node:stream/consumers';
import Docker from 'dockerode';
import {busyboxArchive} from '../harness/busybox';
import {buildImage, buildLayer, busyboxLayer, dockerArchive, pushImage, tarOf, type LayerEntry} from '../harness/images';
import {startRegistry, type TestRegistry} from '../harness/registry';
import {datacenterWithBusybox, removeContainersAfterEach} from '../harness/suite';
import {until} from '../harness/wait';

let docker: Docker;
let registry: TestRegistry;
const dc = datacenterWithBusybox({
  prepare: async () => {
    const {hostname, port} = new URL(dc.host);
    docker = new Docker({host: hostname, port});
    registry = await startRegistry();
  },
  cleanUp: async () => registry?.stop(),
});
removeContainersAfterEach(dc);

const follow = (stream: NodeJS.ReadableStream): Promise<{status?: string; stream?: string; error?: string}[]> =>
  new Promise((resolve, reject) => docker.modem.followProgress(stream, (err, events) => (err ? reject(err) : resolve(events as {status?: string}[]))));
const sleeper = async (name: string, more: Docker.ContainerCreateOptions = {}): Promise<Docker.Container> => {
  const container = await docker.createContainer({name, Image: 'busybox', Cmd: ['sleep', '1000'], ...more});
  await container.start();
  return container;
};
/** Both streams of a multiplexed one, to their end. */
async function apart(stream: NodeJS.ReadableStream): Promise<[string, string]> {
  const [out, err] = [new PassThrough(), new PassThrough()];
  docker.modem.demuxStream(stream, out, err);
  stream.on('end', () => [out, err].forEach((s) => s.end()));
  return [await text(out), await text(err)];
}

test('ping, version, info, df', async () => {
  expect(String(await docker.ping())).toBe('OK');
  expect((await docker.version()).ApiVersion).toBe('1.51');
  expect(await docker.info()).toMatchObject({OSType: 'linux', Images: expect.any(Number)});
  expect(await docker.df()).toMatchObject({Images: [expect.objectContaining({RepoTags: ['busybox:latest']})]});
});

describe('images', () => {
  test('pull with its progress, load, tag, history, inspect, get, prune, remove', async () => {
    await pushImage(registry.url, 'tools/box', ['v1'], buildImage([await busyboxLayer()], {config: {Labels: {from: 'registry'}}}));
    const name = `${registry.host}/tools/box:v1`;
    const progress = await follow(await docker.pull(name));
    expect(progress.at(-1)!.status).toMatch(/Downloaded newer image/);
    await docker.getImage(name).tag({repo: 'mine', tag: 'v2'});
    expect((await docker.getImage('mine:v2').inspect()).RepoTags.sort()).toEqual([name, 'mine:v2'].sort());
    expect(await docker.getImage('mine:v2').history()).toMatchObject([{CreatedBy: 'ADD layer 0 /'}]);
    expect((await buffer(await docker.getImage('mine:v2').get())).length).toBeGreaterThan(100_000);
    await docker.getImage('mine:v2').remove();
    await docker.getImage(name).remove();
    await expect(docker.getImage(name).inspect()).rejects.toMatchObject({statusCode: 404, reason: 'no such image'});
    expect((await follow(await docker.loadImage(fs.createReadStream(await busyboxArchive())))).map((e) => e.stream ?? '').join('')).toContain('Loaded image: busybox:latest');
    const loose = await dockerArchive([{image: buildImage([await buildLayer([{name: 'loose', content: 'x'}], 'none')]), tags: []}]);
    await follow(await docker.loadImage(PassThrough.from([loose]) as unknown as NodeJS.ReadableStream));
    expect((await docker.pruneImages({filters: {dangling: ['true']}})).ImagesDeleted.map((i) => i.Deleted)).toEqual(expect.arrayContaining([expect.stringMatching(/^sha256:/)]));
  });

  test('commit, and a container of what was committed', async () => {
    const box = await sleeper('changed');
    const exec = await box.exec({Cmd: ['sh', '-c', 'echo kept > /kept'], AttachStdout: true});
    await text(await exec.start({hijack: true, stdin: false}));
    const {Id} = await box.commit({repo: 'committed', tag: 'v1', comment: 'of the test', changes: 'CMD ["cat", "/kept"]'}) as {Id: string};
    expect(await docker.getImage('committed:v1').inspect()).toMatchObject({Id, Config: {Cmd: ['cat', '/kept']}});
    // With a terminal, as dockerode runs things where it is not told otherwise.
    const out = new PassThrough();
    const read = text(out);
    const [{StatusCode}, ran] = await docker.run('committed:v1', [], out) as [{StatusCode: number}, Docker.Container];
    out.end();
    expect([StatusCode, await read]).toEqual([0, 'kept\r\n']);
    await Promise.all([box, ran].map((c) => c.remove({force: true})));
    await docker.getImage('committed:v1').remove();
  });
});

describe('build', () => {
  const files: LayerEntry[] = [{name: 'Dockerfile', content: 'FROM busybox\nARG WORD=none\nCOPY file /file\nRUN echo $WORD >> /file\nCMD cat /file\n'}, {name: 'file', content: 'copied\n'}];
  const built = async (tag: string, options: Docker.ImageBuildOptions): Promise<string> => {
    const progress = await follow(await docker.buildImage(Readable.from([await tarOf(files)]), {t: tag, ...options}));
    expect(progress.filter((e) => e.error)).toEqual([]);
    return dc.ok(['run', '--rm', tag]);
  };

  test('classic, from a tar', async () => {
    expect(await built('sdk:classic', {buildargs: {WORD: 'classic'}})).toBe('copied\nclassic');
    const failed = await docker.buildImage(Readable.from([await tarOf([{name: 'Dockerfile', content: 'FROM busybox\nRUN exit 7\n'}])]));
    expect((await follow(failed)).at(-1)!.error).toMatch(/returned a non-zero code: 7/);
  });

  test('BuildKit, with the session that the SDK opens for it', async () => {
    expect(await built('sdk:buildkit', {buildargs: {WORD: 'kit'}, version: '2'})).toBe('copied\nkit');
  });
});

describe('streams', () => {
  test('run: both streams apart, the exit code', async () => {
    // Not AutoRemove: dockerode asks for the end after the start, when what removes itself may be gone.
    const [out, err] = [new PassThrough(), new PassThrough()];
    const [one, two] = [text(out), text(err)];
    const [{StatusCode}] = await docker.run('busybox', ['sh', '-c', 'echo to out; echo to err >&2; exit 9'], [out, err], {Tty: false}) as [{StatusCode: number}];
    [out, err].forEach((s) => s.end());
    expect([StatusCode, await one, await two]).toEqual([9, 'to out\n', 'to err\n']);
  });

  test('attach with stdin over a hijacked connection: half-close, and the answer after it', async () => {
    const box = await docker.createContainer({Image: 'busybox', Cmd: ['sh', '-c', 'wc -c; echo done >&2'], OpenStdin: true, StdinOnce: true});
    const stream = await box.attach({stream: true, hijack: true, stdin: true, stdout: true, stderr: true});
    await box.start();
    const said = apart(stream);
    stream.write(Buffer.alloc(300_000, 'x'));
    stream.end('end');
    expect(await said).toEqual(['300003\n', 'done\n']);
    expect(await box.wait()).toMatchObject({StatusCode: 0});
  });

  test('a terminal is one stream, and has the size it is given', async () => {
    const box = await docker.createContainer({Image: 'busybox', Cmd: ['sh'], Tty: true, OpenStdin: true});
    const stream = await box.attach({stream: true, hijack: true, stdin: true, stdout: true, stderr: true});
    let screen = '';
    stream.setEncoding('utf8');
    stream.on('data', (c: string) => { screen += c; });
    await box.start();
    await box.resize({w: 91, h: 37});
    await until('the size', () => {
      if (!/^37 91\r$/m.test(screen)) stream.write('stty size\n');
      return /^37 91\r$/m.test(screen);
    });
    const exec = await box.exec({Cmd: ['sh', '-c', 'while ! stty size | grep "23 77"; do usleep 20000; done'], AttachStdout: true, Tty: true});
    const said = text(await exec.start({hijack: true, stdin: false, Tty: true}));
    // Its stream is there before its process is, as in the Engine; the stock client tries again, too.
    await until('it to be resized', () => exec.resize({w: 77, h: 23}).then(() => true));
    expect(await said).toMatch(/23 77\r\n$/);
    stream.write('exit 4\n');
    expect(await box.wait()).toMatchObject({StatusCode: 4});
  });

  test('exec: demultiplexed, with stdin, and what is known of it afterwards', async () => {
    const box = await sleeper('worker');
    const exec = await box.exec({Cmd: ['sh', '-c', 'cat; echo aside >&2; exit 6'], AttachStdin: true, AttachStdout: true, AttachStderr: true, Env: ['A=b'], WorkingDir: '/tmp'});
    const stream = await exec.start({hijack: true, stdin: true});
    const said = apart(stream);
    stream.end('through and back');
    expect(await said).toEqual(['through and back', 'aside\n']);
    expect(await exec.inspect()).toMatchObject({Running: false, ExitCode: 6, ProcessConfig: {entrypoint: 'sh'}});
  });

  test('logs: whole as a buffer, followed as a stream', async () => {
    const box = await sleeper('talker', {Cmd: ['sh', '-c', 'echo first; while ! test -e /go; do usleep 20000; done; echo last']});
    await until('its first line', async () => (await box.logs({stdout: true, stderr: true})).toString().includes('first'));
    const followed = apart(await box.logs({follow: true, stdout: true, stderr: true, timestamps: true}) as unknown as Readable);
    const exec = await box.exec({Cmd: ['touch', '/go']});
    await exec.start({Detach: true});
    expect((await followed)[0]).toMatch(/^\d{4}-\d\d-\d\dT\S+Z first\n\d{4}-\d\d-\d\dT\S+Z last\n$/);
  });

  test('stats: once, and as a stream that goes on', async () => {
    const box = await sleeper('measured', {HostConfig: {Memory: 64 << 20}});
    const once1 = await box.stats({stream: false, 'one-shot': true}) as unknown as {memory_stats: {limit: number}; pids_stats: {current: number}};
    expect(once1).toMatchObject({memory_stats: {limit: 64 << 20}, pids_stats: {current: 1}});
    const stream = await box.stats({stream: true}) as unknown as Readable;
    let seen = '';
    stream.setEncoding('utf8').on('data', (c: string) => { seen += c; });
    await until('a second reading, with the first in it', () => {
      const rows = seen.split('\n').filter(Boolean);
      return rows.length >= 2 && (JSON.parse(rows[1]!) as {precpu_stats: {system_cpu_usage: number}}).precpu_stats.system_cpu_usage > 0;
    });
    stream.destroy();
  });

  test('events, with filters', async () => {
    const events = await docker.getEvents({filters: {type: ['container'], label: ['watched=yes']}});
    let seen = '';
    events.setEncoding('utf8');
    events.on('data', (c: string) => { seen += c; });
    await sleeper('unwatched');
    const box = await sleeper('watched', {Labels: {watched: 'yes'}});
    await box.kill();
    const actions = (): string[] => seen.split('\n').filter(Boolean).map((l) => (JSON.parse(l) as {Action: string}).Action);
    await until('its events', () => actions().includes('die'));
    expect(actions()).toEqual(['create', 'start', 'kill', 'die']);
    (events as unknown as Readable).destroy();
  });
});

describe('networks, volumes, and what is pruned', () => {
  test('a network with a container that is connected and disconnected', async () => {
    const network = await docker.createNetwork({Name: 'sdk', Internal: true, Labels: {by: 'sdk'}, IPAM: {Config: [{Subnet: '10.98.4.0/24'}]}});
    const box = await sleeper('member');
    await network.connect({Container: box.id, EndpointConfig: {Aliases: ['also'], IPAMConfig: {IPv4Address: '10.98.4.77'}}});
    expect(await network.inspect()).toMatchObject({Internal: true, Containers: {[box.id]: {IPv4Address: '10.98.4.77/24'}}});
    await network.disconnect({Container: box.id});
    expect(await docker.listNetworks({filters: {label: ['by=sdk']}})).toMatchObject([{Name: 'sdk'}]);
    expect((await docker.pruneNetworks()).NetworksDeleted).toEqual(['sdk']);
  });

  test('volumes, and containers that have ended', async () => {
    await docker.createVolume({Name: 'sdk-data', Labels: {by: 'sdk'}});
    expect(await docker.getVolume('sdk-data').inspect()).toMatchObject({Driver: 'local', Labels: {by: 'sdk'}});
    expect((await docker.listVolumes({filters: {label: ['by=sdk']}})).Volumes).toMatchObject([{Name: 'sdk-data'}]);
    const box = await docker.createContainer({Image: 'busybox', Cmd: ['true'], HostConfig: {Binds: ['sdk-data:/d']}, Labels: {by: 'sdk'}});
    await box.start();
    await box.wait();
    expect((await docker.listContainers({all: true, filters: {label: ['by=sdk']}}))[0]).toMatchObject({State: 'exited', Mounts: [{Name: 'sdk-data'}]});
    await until('it to be at its end', async () => (await docker.pruneContainers({filters: {label: ['by=sdk']}})).ContainersDeleted?.includes(box.id));
    expect((await docker.pruneVolumes({filters: {all: ['true']}})).VolumesDeleted).toEqual(['sdk-data']);
  });
});

test('archives: put into a container, got out of it, and what is known of a file', async () => {
  const box = await sleeper('filled');
  await box.putArchive(Readable.from([await tarOf([{name: 'deep', type: 'directory'}, {name: 'deep/file', content: 'put\n', mode: 0o640, uid: 33}])]), {path: '/home'});
  const exec = await box.exec({Cmd: ['sh', '-c', 'stat -c "%a %u" /home/deep/file; cat /home/deep/file; echo more > /home/new'], AttachStdout: true});
  expect((await apart(await exec.start({hijack: true, stdin: false})))[0]).toBe('640 33\nput\n');
  const got = await buffer(await box.getArchive({path: '/home/deep'}));
  expect(got.subarray(0, 5).toString()).toBe('deep/');
  expect(got.toString()).toContain('put\n');
  const head = await fetch(`${dc.host.replace('tcp', 'http')}/containers/filled/archive?path=/home/deep/file`, {method: 'HEAD'});
  expect(JSON.parse(Buffer.from(head.headers.get('x-docker-container-path-stat')!, 'base64').toString())).toMatchObject({name: 'file', size: 4, linkTarget: ''});
  await expect(box.getArchive({path: '/nowhere'})).rejects.toMatchObject({statusCode: 404});
  const changes = await box.changes() as {Path: string; Kind: number}[];
  expect(changes).toEqual(expect.arrayContaining([{Path: '/home/new', Kind: 1}, {Path: '/home', Kind: 0}]));
  expect((await buffer(await box.export())).toString()).toContain('home/deep/file');
});

test('mistakes are errors with the Engine\'s status and reason', async () => {
  await expect(docker.getContainer('nobody').inspect()).rejects.toMatchObject({statusCode: 404, reason: 'no such container', json: {message: 'No such container: nobody'}});
  await expect(docker.createContainer({Image: 'no/such:image'})).rejects.toMatchObject({statusCode: 404, json: {message: 'No such image: no/such:image'}});
  const box = await sleeper('twice');
  await expect(box.start()).rejects.toMatchObject({statusCode: 304});
  await expect(sleeper('twice')).rejects.toMatchObject({statusCode: 409});
  await expect(docker.getVolume('nothing').remove()).rejects.toMatchObject({statusCode: 404, json: {message: 'get nothing: no such volume'}});
});
