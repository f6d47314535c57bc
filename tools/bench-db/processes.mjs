// Processes of the databases under test: started as their own user, found again with all their children, killed as a machine's death kills them.
import {execFileSync, spawn} from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';

/** The distribution's Postgres, for every system here. */
export const BIN = fs.readdirSync('/usr/lib/postgresql').sort((a, b) => Number(b) - Number(a)).map((v) => `/usr/lib/postgresql/${v}/bin`).find((dir) => fs.existsSync(`${dir}/postgres`));

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Polls until `probe` gives something true; a probe that throws has not given it yet. */
export async function waitFor(what, probe, ms = 60_000) {
  let last;
  for (const end = Date.now() + ms; ;) {
    try {
      const value = await probe();
      if (value) return value;
      last = value;
    } catch (err) { last = err; }
    if (Date.now() > end) throw new Error(`${what} did not happen in ${ms / 1000} s; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
    await sleep(25);
  }
}

/** Below the ports that the kernel hands out, so that no connection takes one between our look and its use. */
export async function freePorts(count) {
  for (;;) {
    const first = 20_000 + Math.floor(Math.random() * 10_000);
    const free = await Promise.all(Array.from({length: count}, (_, i) => new Promise((resolve) => {
      const server = net.createServer().once('error', () => resolve(false)).listen(first + i, '127.0.0.1', () => server.close(() => resolve(true)));
    })));
    if (free.every(Boolean)) return Array.from({length: count}, (_, i) => first + i);
  }
}

/** As user postgres, which is what a server refuses to be without; dies with us. */
export function asPostgres(command, args, {log, cwd = '/', env = {}}) {
  const out = fs.openSync(log, 'a');
  const child = spawn('setpriv', ['--reuid', 'postgres', '--regid', 'postgres', '--init-groups', '--pdeathsig', 'KILL', command, ...args],
    {stdio: ['ignore', out, out], cwd, env: {PATH: `${BIN}:${process.env.PATH}`, LANG: 'C.UTF-8', HOME: cwd, ...env}});
  fs.closeSync(out);
  return child;
}

export const runAsPostgres = (command, args) => execFileSync('setpriv', ['--reuid', 'postgres', '--regid', 'postgres', '--init-groups', command, ...args], {stdio: ['ignore', 'ignore', 'pipe'], cwd: '/'});

/** Every process that names `dir` on its command line, and all below those. */
export function processesOf(dir) {
  const all = fs.readdirSync('/proc').filter((p) => /^\d+$/.test(p)).flatMap((p) => {
    try {
      const stat = fs.readFileSync(`/proc/${p}/stat`, 'utf8');
      return [{pid: Number(p), parent: Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]), command: fs.readFileSync(`/proc/${p}/cmdline`, 'latin1')}];
    } catch { return []; }
  });
  const named = (command) => command.split('\0').some((word) => word === dir || word.includes(`${dir}/`));
  const wanted = new Set(all.filter((p) => p.pid !== process.pid && named(p.command)).map((p) => p.pid));
  for (let grown = true; grown;) {
    grown = false;
    for (const p of all) if (!wanted.has(p.pid) && wanted.has(p.parent)) { wanted.add(p.pid); grown = true; }
  }
  return [...wanted];
}

/** kill -9 of all of them in one go; answers the moment before the first. */
export function killAll(pids) {
  const at = performance.now();
  for (const pid of pids) {
    try { process.kill(pid, 'SIGKILL'); } catch { /* already gone */ }
  }
  return at;
}

/** Until nothing is left: also what was being forked meanwhile. */
export const endAll = (dir) => waitFor(`the processes of ${dir} to end`, () => {
  const pids = processesOf(dir);
  killAll(pids);
  return pids.length === 0;
});
