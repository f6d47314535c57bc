// Images for the benchmark, as archives that `docker load` takes, and the distribution's registry to pull from.
import {execFileSync, spawn} from 'node:child_process';
import {createHash} from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';

const sha = (file) => createHash('sha256').update(fs.readFileSync(file)).digest('hex');

/** One docker-archive from layer directories; tar(1) does the packing. */
function archive(dir, name, layerDirs, config) {
  const build = path.join(dir, `build-${name}`);
  fs.mkdirSync(build);
  const layers = layerDirs.map((layer, n) => {
    execFileSync('tar', ['--numeric-owner', '--owner=0', '--group=0', '-C', layer, '-cf', path.join(build, `${n}.tar`), '.']);
    return `${n}.tar`;
  });
  const text = JSON.stringify({architecture: process.arch === 'arm64' ? 'arm64' : 'amd64', os: 'linux', created: '2026-01-01T00:00:00Z', config,
    rootfs: {type: 'layers', diff_ids: layers.map((l) => `sha256:${sha(path.join(build, l))}`)}, history: layers.map(() => ({created: '2026-01-01T00:00:00Z', created_by: 'bench'}))});
  const configName = `${createHash('sha256').update(text).digest('hex')}.json`;
  fs.writeFileSync(path.join(build, configName), text);
  fs.writeFileSync(path.join(build, 'manifest.json'), JSON.stringify([{Config: configName, RepoTags: [`${name}:latest`], Layers: layers}]));
  const file = path.join(dir, `${name}.tar`);
  execFileSync('tar', ['-C', build, '-cf', file, configName, 'manifest.json', ...layers]);
  fs.rmSync(build, {recursive: true});
  return file;
}

export async function busyboxArchive(dir) {
  const root = path.join(dir, 'busybox-root');
  fs.mkdirSync(path.join(root, 'bin'), {recursive: true});
  for (const d of ['etc', 'tmp', 'root', 'proc', 'sys', 'dev']) fs.mkdirSync(path.join(root, d));
  const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((f) => fs.existsSync(f));
  fs.copyFileSync(busybox, path.join(root, 'bin/busybox'));
  fs.chmodSync(path.join(root, 'bin/busybox'), 0o755);
  for (const applet of execFileSync(busybox, ['--list'], {encoding: 'utf8'}).trim().split('\n'))
    if (applet !== 'busybox') fs.symlinkSync('busybox', path.join(root, 'bin', applet));
  return archive(dir, 'busybox', [root], {Env: ['PATH=/bin'], Cmd: ['sh']});
}

/** 200 MB in four layers that do not compress: what is timed is moving and hashing, not guessing. */
export async function bigArchive(dir, randomBytes) {
  const layers = Array.from({length: 4}, (_, n) => {
    const layer = path.join(dir, `big-${n}`);
    fs.mkdirSync(layer);
    for (let i = 0; i < 50; i += 1) fs.writeFileSync(path.join(layer, `file-${n}-${i}`), randomBytes(1_000_000));
    return layer;
  });
  return archive(dir, 'big', layers, {Cmd: ['true']});
}

export async function startRegistry(dir) {
  const port = await new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const chosen = server.address().port;
      server.close(() => resolve(chosen));
    });
  });
  const config = path.join(dir, 'registry.yml');
  fs.writeFileSync(config, `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${path.join(dir, 'registry')}}}\nhttp: {addr: 127.0.0.1:${port}}\n`);
  const child = spawn('docker-registry', ['serve', config], {stdio: 'ignore'});
  return {
    /** Loads the archive into `engine` and pushes it from there: a stock client's push, whatever is compared. */
    async push(engine, file, name) {
      const reference = `127.0.0.1:${port}/${name}:latest`;
      const docker = (...args) => execFileSync('docker', ['-H', engine.host, ...args], {stdio: ['ignore', 'ignore', 'inherit']});
      docker('load', '-i', file);
      docker('tag', `${name}:latest`, reference);
      docker('push', reference);
      docker('rmi', '-f', reference, `${name}:latest`);
      return reference;
    },
    stop: () => new Promise((resolve) => {
      child.once('exit', resolve);
      child.kill('SIGTERM');
    }),
  };
}
