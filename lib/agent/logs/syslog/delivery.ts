/**
 * One container's messages on their way to its syslog server. A server never stops a container for ever, and memory is bounded:
 *  - `blocking` (the default): with more than BUFFER_BYTES on their way the container is held back, for STALL_MS at most; after that messages
 *    are left out until the server takes some again;
 *  - `non-blocking`: with more than `max-buffer-size` on their way messages are left out at once;
 *  - a server that goes away is looked for again every second; meanwhile messages wait within the same bound.
 * What is left out is counted and told to `trouble` once, and again when it is over. The container's local log (`docker logs`) has all of it.
 */
import type {Clock} from '../../../base/clock';
import type {StreamNumber} from '../encode';
import {LineCutter} from '../lines';
import type {Carrier} from './connect';
import {message, type Sender} from './format';

export const BUFFER_BYTES = 1024 * 1024;
export const STALL_MS = 120_000;
const RETRY_MS = 1_000;
const GRACE_MS = 2_000;

/** `lost`: messages left out since the last word; undefined: some have just begun to be. */
export type DeliveryTrouble = (what: {err?: unknown; lost?: number}) => void;

export interface DeliveryOptions { sender: Sender; blocking: boolean; bufferBytes: number; clock: Clock; connect(): Promise<Carrier>; trouble: DeliveryTrouble }

export class SyslogDelivery {
  private readonly cutters = {1: new LineCutter(), 2: new LineCutter()};
  private carrier: Carrier | undefined;
  private readonly ended = new AbortController();
  /** While there is no server. */
  private queue: Buffer[] = [];
  private queuedBytes = 0;
  private lost = 0;
  private holding: {promise: Promise<void>; release(): void} | undefined;
  /** The server had its time: until it takes something, nobody is held back. */
  private givenUp = false;

  constructor(private readonly options: DeliveryOptions) {}

  /** The first connection: where it fails, the container does not start. */
  async open(): Promise<void> {
    this.use(await this.options.connect());
  }

  /** No server yet, and none needed for going on: a container that runs already, after the agent's restart. */
  openLater(): void {
    this.reconnect(undefined);
  }

  /** A promise: the container is to be held back until it resolves. */
  write(stream: StreamNumber, chunk: Buffer): Promise<void> | undefined {
    for (const line of this.cutters[stream].take(chunk)) this.pass(stream, line);
    return this.hold();
  }

  end(stream: StreamNumber): void {
    this.pass(stream, this.cutters[stream].end());
  }

  async close(): Promise<void> {
    if (this.ended.signal.aborted) return;
    this.ended.abort();
    this.letGo();
    await this.carrier?.close(GRACE_MS);
  }

  private get waiting(): number {
    return this.queuedBytes + (this.carrier?.waiting ?? 0);
  }

  private pass(stream: StreamNumber, line: Buffer): void {
    // The Engine sends no empty lines either.
    if (line.length === 0 || this.ended.signal.aborted) return;
    const {sender, clock, blocking, bufferBytes} = this.options;
    // Blocking, one chunk may go beyond the bound: the container is held back behind it.
    if (this.waiting > bufferBytes && (!blocking || this.givenUp)) {
      if (this.lost === 0) this.options.trouble({});
      this.lost += 1;
      return;
    }
    const bytes = message(sender, stream, line, clock.nowNs());
    if (this.carrier) return this.carrier.send(bytes);
    this.queue.push(bytes);
    this.queuedBytes += bytes.length;
  }

  private hold(): Promise<void> | undefined {
    if (!this.options.blocking || this.givenUp || this.waiting <= this.options.bufferBytes || this.ended.signal.aborted) return undefined;
    if (this.holding) return this.holding.promise;
    const late = new AbortController();
    let release!: () => void;
    const promise = new Promise<void>((resolve) => {
      release = () => {
        late.abort();
        this.holding = undefined;
        resolve();
      };
    });
    this.holding = {promise, release};
    this.options.clock.sleep(STALL_MS, late.signal).then(() => {
      this.givenUp = true;
      release();
    }, () => undefined);
    return promise;
  }

  private letGo(): void {
    this.holding?.release();
  }

  private use(carrier: Carrier): void {
    this.carrier = carrier;
    carrier.onDrain = () => {
      this.givenUp = false;
      if (this.lost > 0) this.options.trouble({lost: this.lost});
      this.lost = 0;
      this.letGo();
    };
    carrier.onBroken = (err) => this.reconnect(err);
    for (const bytes of this.queue.splice(0)) carrier.send(bytes);
    this.queuedBytes = 0;
    if (carrier.waiting === 0) carrier.onDrain();
  }

  private reconnect(err: unknown): void {
    this.carrier = undefined;
    if (this.ended.signal.aborted) return;
    if (err) this.options.trouble({err});
    void (async () => {
      const {signal} = this.ended;
      for (;;) {
        const carrier = await this.options.connect().catch(() => undefined);
        if (carrier && signal.aborted) return void carrier.close(0);
        if (carrier) return this.use(carrier);
        if (!(await this.options.clock.sleep(RETRY_MS, signal).then(() => true, () => false))) return;
      }
    })();
  }
}
