/**
 * A container's record on its way to the disk: at once, or, where the disk does not take what has happened already, again and again until it
 * does. One for each unit.
 */
import type {NodeParts} from './node-parts';
import type {ContainerRecord} from './record';

const AGAIN_MS = 1_000;

export class RecordSaver {
  /** The record in memory is newer than the disk's. */
  private again: Promise<void> | undefined;

  /** `over`: the agent goes, or the container is gone; nothing is saved from then on. */
  constructor(private readonly parts: NodeParts, private readonly id: string, private readonly record: () => ContainerRecord, private readonly over: () => boolean, private readonly signal: AbortSignal) {}

  /** Throws the system's error where the disk does not take it. */
  save(): void {
    this.parts.store.saveRecord(this.id, this.record());
  }

  /** For what has failed with `err` and holds nevertheless. */
  saveLater(err: unknown): void {
    if (!this.again) this.parts.log.error({err, containerId: this.id}, 'the disk takes no record of a container; trying again');
    this.again ??= this.tryAgain();
  }

  private async tryAgain(): Promise<void> {
    while (!this.over()) {
      await this.parts.clock.sleep(AGAIN_MS, this.signal).catch(() => undefined);
      try {
        if (!this.over()) this.save();
        break;
      } catch {
        continue; // told once
      }
    }
    this.again = undefined;
  }
}
