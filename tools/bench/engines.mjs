// The two engines under comparison, each on a unix socket of its own with a data directory of its own on the same disk.
import {execFileSync, spawn} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const waitFor = async (what, probe, ms = 60_000) => {
  const end = Date.now() + ms;
  for (;;) {
    if (await probe()) return;
    if (Date.now() > end) throw new Error(`${what} did not happen in ${ms / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

const stop = async (child) => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await gone;
};

/** dockerd's network. Not docker0: another dockerd of this machine may have that, and the two would change its address for each other. */
export const BRIDGE = `cetusbench${process.pid % 100_000}`;
const env = {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`};
const ip = (...args) => execFileSync('ip', args, {stdio: 'ignore', env});

export async function startDockerd(dir) {
  ip('link', 'add', BRIDGE, 'type', 'bridge');
  ip('addr', 'add', '192.168.213.1/24', 'dev', BRIDGE);
  const socket = path.join(dir, 'docker.sock');
  const log = fs.openSync(path.join(dir, 'dockerd.log'), 'a');
  const child = spawn('dockerd', ['--host', `unix://${socket}`, '--data-root', path.join(dir, 'docker'), '--exec-root', path.join(dir, 'docker-exec'),
    '--pidfile', path.join(dir, 'docker.pid'), '--bridge', BRIDGE, '--storage-driver', 'overlay2', '--insecure-registry', '127.0.0.0/8'],
  {stdio: ['ignore', log, log], env});
  await waitFor('dockerd to serve', () => {
    if (child.exitCode !== null) throw new Error(`dockerd ended: ${fs.readFileSync(path.join(dir, 'dockerd.log'), 'utf8').slice(-1500)}`);
    return fs.existsSync(socket);
  });
  return {name: 'dockerd', socket, host: `unix://${socket}`, processes: () => tree(child.pid), stop: () => stop(child)};
}

/** `args` are more of `cetus up`'s; `name` is also its directory's in `dir`. */
export async function startCetus(dir, {name = 'cetus', args = []} = {}) {
  const socket = path.join(dir, `${name}.sock`);
  const program = path.resolve(import.meta.dirname, '../../dist/main/cetus.js');
  const data = path.join(dir, name);
  fs.mkdirSync(data, {mode: 0o711});
  const log = fs.openSync(path.join(dir, `${name}.log`), 'a');
  const child = spawn(process.execPath, [program, 'up', '--data', data, '--listen', `unix://${socket}`, ...args], {stdio: ['ignore', log, log]});
  await waitFor('cetus up to serve', () => {
    if (child.exitCode !== null) throw new Error(`cetus up ended: ${fs.readFileSync(path.join(dir, `${name}.log`), 'utf8').slice(-1500)}`);
    return fs.existsSync(path.join(data, 'run', 'up.json'));
  });
  return {
    name, socket, host: `unix://${socket}`, data,
    processes: () => tree(child.pid, data),
    stop: async () => {
      await stop(child);
      execFileSync(process.execPath, [program, 'down', '--data', data], {stdio: 'ignore'});
    },
  };
}

/**
 * Every process below pid, and those whose command line names `dir`, with two measures of their memory in KiB: resident (RSS, in which a page
 * that n processes share counts n times) and proportional (PSS, in which it counts 1/n for each: these may be added up).
 */
function tree(pid, dir) {
  const all = fs.readdirSync('/proc').filter((p) => /^\d+$/.test(p)).flatMap((p) => {
    try {
      const stat = fs.readFileSync(`/proc/${p}/stat`, 'utf8');
      const command = fs.readFileSync(`/proc/${p}/cmdline`, 'utf8').split('\0');
      return [{pid: Number(p), parent: Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]), command,
        ...memory(p)}];
    } catch { return []; }
  });
  const wanted = new Set([pid]);
  for (let grown = true; grown;) {
    grown = false;
    for (const p of all)
      if (!wanted.has(p.pid) && (wanted.has(p.parent) || (dir && p.command.some((c) => c.includes(dir))))) { wanted.add(p.pid); grown = true; }
  }
  return all.filter((p) => wanted.has(p.pid)).map((p) => ({
    pid: p.pid, residentKib: p.residentKib, proportionalKib: p.proportionalKib,
    name: /cetus\.js$/.test(p.command[1] ?? p.command[2] ?? '') || p.command.some((c) => c.endsWith('cetus.js'))
      ? `cetus ${p.command[p.command.findIndex((c) => c.endsWith('cetus.js')) + 1]}`
      : path.basename(p.command[0]).split(' ')[0].replace(/:$/, ''),
  }));
}

function memory(pid) {
  const text = fs.readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const kib = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return {residentKib: kib('Rss'), proportionalKib: kib('Pss')};
}
