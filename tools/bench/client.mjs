// The stock client as a person uses it, against one of the two engines.
import {execFileSync, spawn} from 'node:child_process';

/** `docker ARGS`; resolves to the number of bytes on its stdout. */
export function docker(engine, args, {stdin, allow = [0]} = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn('docker', ['-H', engine.host, ...args], {stdio: [stdin ?? 'ignore', 'pipe', 'pipe']});
    let err = '';
    let bytes = 0;
    child.stdout.on('data', (c) => { bytes += c.length; });
    child.stderr.on('data', (c) => { err = (err + c).slice(-2000); });
    child.once('error', reject);
    child.once('close', (code) => (allow.includes(code) ? resolve(bytes) : reject(new Error(`${engine.name}: docker ${args.join(' ')}: ${code} ${err}`))));
  });
}

/** `docker ARGS` fed by a shell pipeline. */
export const piped = (engine, producer, args) => new Promise((resolve, reject) => {
  const child = spawn('sh', ['-c', `${producer} | docker -H ${engine.host} ${args}`], {stdio: ['ignore', 'ignore', 'inherit']});
  child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${engine.name}: ${args}: ${code}`))));
});

/** What one engine left for the kernel to write would be the next one's wait: that one flushes what it stored, dockerd does not. */
export const quietDisk = () => execFileSync('sync');
