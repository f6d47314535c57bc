/**
 * One attached client's duplex against a hub: output out, its bytes to stdin, half-close, detach keys. Used for containers and execs.
 *
 * The end of the client's bytes closes the process's stdin where that is the client's to close (StdinOnce, or an exec) and there is no
 * terminal; elsewhere it ends this attachment, as in the Engine. Input waits while there is no process yet: the socket is not read.
 */
import type {Duplex} from 'node:stream';
import {DetachWatcher, parseDetachKeys} from './detach';
import type {HubClient, StdioHub} from './hub';

export interface AttachOptions {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  tty: boolean;
  /** The end of the client's input is the end of the process's stdin. */
  closesStdin: boolean;
  detachKeys: string;
}

/** Resolves when the attachment is over; `detached` where the keys ended it. */
export function attachStream(hub: StdioHub, stream: Duplex, options: AttachOptions): Promise<{detached: boolean}> {
  return new Promise((resolve) => {
    let over = false;
    let detached = false;
    let letGo = false;
    const finish = (): void => {
      if (over) return;
      over = true;
      // A stream that is gone by itself was its client's; one that the hub gave up says nothing about the client's input.
      letGo = !stream.destroyed;
      resolve({detached});
    };
    const client: HubClient = {sink: stream, stdout: options.stdout, stderr: options.stderr, onGone: finish};
    stream.on('error', () => stream.destroy());
    hub.attach(client);
    if (over) return;
    const leave = (): void => {
      stream.end();
      hub.detach(client);
      stream.resume();
    };
    if (!options.stdin) {
      // What a client without stdin sends is read and dropped, so that its hanging up is noticed.
      stream.resume();
      return;
    }
    void pumpStdin(hub, stream, options, () => letGo).then((end) => {
      if (end === 'detached') {
        detached = true;
        leave();
      } else if (end === 'ended' && !(options.closesStdin && !options.tty)) {
        leave();
      }
    });
  });
}

async function pumpStdin(hub: StdioHub, stream: Duplex, options: AttachOptions, isLetGo: () => boolean): Promise<'detached' | 'ended' | 'gone'> {
  const stdin = await hub.stdin();
  const watcher = options.tty ? new DetachWatcher(parseDetachKeys(options.detachKeys)) : undefined;
  return await new Promise((resolve) => {
    let settled = false;
    const settle = (how: 'detached' | 'ended' | 'gone'): void => {
      if (settled) return;
      settled = true;
      stdin?.removeListener('close', onStdinClose);
      resolve(how);
    };
    // The process closed its stdin, or is gone: what the client still sends is dropped.
    const onStdinClose = (): void => void stream.resume();
    stdin?.once('close', onStdinClose);
    const write = (bytes: Buffer): void => {
      if (!bytes.length || !stdin || stdin.destroyed || stdin.writableEnded) return;
      if (!stdin.write(bytes)) {
        stream.pause();
        stdin.once('drain', () => stream.resume());
      }
    };
    stream.on('data', (chunk: Buffer) => {
      if (!watcher) return write(chunk);
      const {pass, detached} = watcher.feed(chunk);
      write(pass);
      if (detached) {
        stream.removeAllListeners('data');
        settle('detached');
      }
    });
    const inputOver = (how: 'ended' | 'gone'): void => {
      if (settled) return;
      if (watcher) write(watcher.end());
      // A client that died without saying so is the end of its input, too.
      if (options.closesStdin && !options.tty && !isLetGo()) hub.closeStdin().catch(() => undefined);
      settle(how);
    };
    // A socket whose peer had nothing to say emits 'end' even while nobody reads it: that may be over before the process was there.
    if (stream.readableEnded) return inputOver('ended');
    if (stream.destroyed) return inputOver('gone');
    stream.once('end', () => inputOver('ended'));
    stream.once('close', () => inputOver('gone'));
    stream.resume();
  });
}
