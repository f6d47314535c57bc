/**
 * The guard: a process of its own beside the agent that kills what is marked when its lease has not been renewed in time, whatever keeps the agent from doing so: it is
 * stopped, blocked, or dead. Knows no containerd, no network, no store: a file that says until when, a directory that says what, and control groups.
 *
 * Started by the agent (guard-link.ts), outlives it, and ends by itself: when another guards, when the directory is gone, or when all is killed and no agent is left.
 *
 *     node guard.js DIRECTORY CGROUP_PARENT
 */
import {appendFileSync, existsSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {bootTimeMs, kernelBootId, LeaseFiles} from './lease-file';
import {killGroups} from './kill';

/** The delay of the kill, and of what a machine that wakes up runs twice. */
const LOOK_MS = 250;
/** What is killed needs a moment to go; and a process that was being made is found by a later look. */
const STILL_LOOKS = 40;

function guard(directory: string, cgroupParent: string): void {
  const files = new LeaseFiles(directory);
  const bootId = kernelBootId();
  let quiet = 0;
  favour();
  files.guard(process.pid);
  const look = (): void => {
    if (!existsSync(directory) || files.guardPid() !== process.pid) process.exit(0);
    const lease = files.read();
    // Half written: the next look reads it. Of another boot: nothing runs of it.
    if (!lease || lease.bootId !== bootId || bootTimeMs() < lease.guardAtMs) {
      quiet = 0;
      return;
    }
    const marked = files.marked();
    const found = killGroups(marked.map((id) => `${cgroupParent}/${id}`));
    if (found.length) appendFileSync(join(directory, 'guard.log'), `${new Date().toISOString()} the lease ended without the agent: ${found.join(' ')}\n`);
    quiet = found.length ? 0 : quiet + 1;
    if (quiet >= STILL_LOOKS && !lives(lease.agentPid)) process.exit(0);
  };
  look();
  setInterval(look, LOOK_MS);
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (err) {
    return (err as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** The last that the kernel takes memory from, and among the first that get a processor; where it lets us. */
function favour(): void {
  for (const [file, text] of [['oom_score_adj', '-1000'], ['autogroup', '-10']] as const) {
    try {
      writeFileSync(`/proc/self/${file}`, text);
    } catch {
      continue;
    }
  }
}

const [directory, cgroupParent] = process.argv.slice(2);
if (directory === undefined || cgroupParent === undefined) process.exit(2);
// Of a terminal that was closed, of a service whose agent was told to stop: none of it is a reason to leave containers unguarded.
for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGPIPE'] as const) process.on(signal, () => undefined);
guard(directory, cgroupParent);
