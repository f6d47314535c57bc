/**
 * Our ends of one process's FIFOs. Output streams end when the last writer in the container is gone and every byte has been
 * read; while nobody reads, the writer blocks. Called by containerd.ts only.
 */
import fs from 'node:fs';
import path from 'node:path';
import {openInput} from './fifo-input';
import {FifoOutput} from './fifo-output';
import {openRead, openWrite} from './fifos';
import type {IoRequest, ProcessIo} from './runtime';

export interface OpenedIo extends ProcessIo {
  /** The shim has been told to open its ends: the stand-ins that kept ours from seeing an early end go away. */
  shimReady(): void;
  /** Lets go of streams that nobody ever read; the others end by themselves. */
  release(): void;
}

export interface OpenOptions {
  /** Directory of the set. */
  set: string;
  io: IoRequest;
  /** The shim's ends are not open yet. */
  fresh: boolean;
  /** Lets the shim let go of its own write end of stdin. */
  closeIo(): Promise<void>;
}

export function openIo({set, io, fresh, closeIo}: OpenOptions): OpenedIo {
  const standIns: number[] = [];
  const output = (name: string): FifoOutput => {
    const file = path.join(set, name);
    const end = openRead(file);
    // Without any writer the very first read would already be the end of file; and if the shim has left already, only a writer that
    // comes and goes makes the kernel report that end to a reader that was late.
    const standIn = openWrite(file);
    if (fresh) standIns.push(standIn);
    else fs.closeSync(standIn);
    return new FifoOutput(end);
  };
  const stdin = io.stdin ? openInput(path.join(set, 'stdin'), fresh) : undefined;
  const stdout = output('stdout');
  const stderr = io.terminal ? undefined : output('stderr');
  const outputs = stderr ? [stdout, stderr] : [stdout];
  stdin?.on('error', () => undefined);

  return {
    stdin, stdout, stderr,
    shimReady: () => {
      for (const end of standIns.splice(0)) fs.closeSync(end);
      stdin?.shimReady();
    },
    closeStdin: async () => {
      // With a terminal the shim would take the end of stdin for a hang-up; the Engine does not pass it on either.
      if (!stdin || io.terminal) return;
      await new Promise<void>(resolve => {
        if (stdin.destroyed || stdin.writableFinished) return resolve();
        stdin.once('close', resolve);
        stdin.end();
      });
      await closeIo();
    },
    detach: () => {
      for (const end of standIns.splice(0)) fs.closeSync(end);
      stdin?.destroy();
      for (const stream of outputs) stream.destroy();
    },
    release: () => {
      for (const end of standIns.splice(0)) fs.closeSync(end);
      stdin?.destroy();
      for (const stream of outputs) stream.release();
    },
  };
}
