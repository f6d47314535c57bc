/**
 * One ingress per machine and datacenter: endpoints that share a machine share its ports. Whoever holds the name has them; the others wait at it and take over as
 * soon as the kernel lets go of it, whatever way the holder ended. The name is a socket's in the abstract namespace, which is the network namespace's own, as the ports are.
 */
import net from 'node:net';
import type {Clock} from '../base/clock';

const AGAIN_MS = 1_000;

export class Turn {
  private readonly server = net.createServer((waiting) => {
    this.waiting.add(waiting);
    waiting.on('error', () => undefined).on('close', () => this.waiting.delete(waiting)).resume();
  });
  private readonly waiting = new Set<net.Socket>();
  private held = false;

  constructor(private readonly name: string, private readonly clock: Clock) {}

  /** Resolves when it is this process' turn; `wait` is called where it is somebody else's. Rejects when the signal is aborted. */
  async take(signal: AbortSignal, wait: () => void): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      try {
        await this.listen();
        this.held = true;
        return;
      } catch (err) {
        if ((err as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw err;
      }
      wait();
      // One that has just let go is there no more: at once again, but not a thousand times.
      if (!await this.outlived(signal)) await this.clock.sleep(AGAIN_MS, signal);
    }
  }

  release(): void {
    if (!this.held) return;
    this.held = false;
    this.server.close();
    for (const socket of this.waiting) socket.destroy();
  }

  private listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen({path: `\0${this.name}`}, () => {
        this.server.off('error', reject);
        this.server.on('error', () => undefined);
        this.server.unref();
        resolve();
      });
    });
  }

  /** Until the holder is gone; false where it could not be watched. */
  private outlived(signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      let connected = false;
      const socket = net.connect({path: `\0${this.name}`}, () => { connected = true; });
      const abort = (): void => void socket.destroy();
      signal.addEventListener('abort', abort, {once: true});
      socket.on('error', () => undefined).resume().once('close', () => {
        signal.removeEventListener('abort', abort);
        resolve(connected);
      });
    });
  }
}
