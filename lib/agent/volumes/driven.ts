/**
 * Volumes whose driver options name something to mount (tmpfs, nfs, a directory, a device). Guarantees: mounted from the first container that
 * holds the volume to the last, once, whoever comes at the same time; what a life of the agent left mounted is taken up by the next, or
 * unmounted where nobody holds it; nothing below a mount is ever removed with the volume. Holders are containers' ids, or a name of our own.
 */
import {existsSync, rmSync} from 'node:fs';
import {mkdir} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {asCetusError, CetusError} from '../../base/errors';
import {readJson, writeWhole} from '../store';
import {Turns} from '../turns';
import {isBindOption, mountCalls, mountFailure, needsMount, parseMountOptions, withoutPassword} from './driver-options';
import type {Mounter} from './mounter';
import type {Pin} from './pin';

/** `within`: of a bind, the allowed directory that it is below by its name. */
export interface DriverOptions { options: Record<string, string>; within?: string }

const FILE = 'options.json';

export interface DrivenParts {
  /** DIR/volumes/ID/_data */
  path(volumeId: string): string;
  mounter: Mounter;
  /** A path that containers may rewrite, judged and held by what it is now. */
  pin(device: string, within: string): Promise<Pin>;
}

export class DrivenVolumes {
  private readonly holders = new Map<string, Set<string>>();
  private readonly turns = new Turns();

  constructor(private readonly parts: DrivenParts) {}

  /** Kept beside the volume: whoever holds it later asks nobody. */
  remember(volumeId: string, driver: DriverOptions): void {
    if (!Object.keys(driver.options).length || existsSync(this.file(volumeId))) return;
    writeWhole(this.file(volumeId), JSON.stringify(driver));
  }

  isDriven(volumeId: string): boolean {
    const driver = this.driver(volumeId);
    return driver !== undefined && needsMount(driver.options);
  }

  /** Others than `holder` hold it. */
  isShared(volumeId: string, holder: string): boolean {
    return [...this.holders.get(volumeId) ?? []].some((other) => other !== holder);
  }

  /** Repeatable. Nothing where the volume has nothing to mount. */
  async hold(volumeId: string, holder: string): Promise<void> {
    const driver = this.driver(volumeId);
    if (!driver || !needsMount(driver.options)) return;
    await this.turns.hold(volumeId, async () => {
      const holders = this.holders.get(volumeId) ?? new Set();
      if (!holders.size && !this.depth(volumeId)) await this.mount(volumeId, driver);
      this.holders.set(volumeId, holders.add(holder));
    });
  }

  /** All that it holds. Repeatable. */
  async release(holder: string): Promise<void> {
    await Promise.all([...this.holders].filter(([, holders]) => holders.has(holder)).map(([volumeId]) => this.turns.hold(volumeId, async () => {
      const holders = this.holders.get(volumeId);
      if (!holders?.delete(holder) || holders.size) return;
      this.holders.delete(volumeId);
      await this.unmount(volumeId);
    })));
  }

  /** At the agent's start: what containers that may run have mounted is theirs; other mounts go. */
  async recover(holdings: Iterable<{volumeId: string; holder: string}>, root: string): Promise<void> {
    const mounted = this.parts.mounter.mounted(root);
    if (!mounted.size) return;
    for (const {volumeId, holder} of holdings) {
      if (!mounted.has(this.parts.path(volumeId)) || !this.isDriven(volumeId)) continue;
      this.holders.set(volumeId, (this.holders.get(volumeId) ?? new Set()).add(holder));
    }
    const held = new Set([...this.holders.keys()].map((id) => this.parts.path(id)));
    for (const [path, depth] of mounted) if (!held.has(path)) for (let n = 0; n < depth; n += 1) await this.parts.mounter.unmount(path);
  }

  /** Before the volume's directory is removed with all that is in it. Refuses where something stays mounted there. */
  async forget(volumeId: string): Promise<void> {
    if (!this.driver(volumeId)) return;
    await this.turns.hold(volumeId, async () => {
      if (this.holders.get(volumeId)?.size) throw new CetusError('conflict', 'volume is in use');
      await this.unmount(volumeId);
      if (this.depth(volumeId)) throw new CetusError('internal', `volume ${volumeId} stays mounted`, {shown: 'the volume could not be unmounted'});
      rmSync(this.file(volumeId), {force: true});
    });
  }

  private async mount(volumeId: string, {options, within}: DriverOptions): Promise<void> {
    const target = this.parts.path(volumeId);
    await mkdir(target, {recursive: true, mode: 0o755});
    const pinned = within !== undefined && isBindOption(options['o']) ? await this.pinned(options, target, within) : undefined;
    try {
      const calls = await mountCalls(options, target, async (host) => await this.parts.mounter.resolve(host).catch((err: unknown) => {
        throw new CetusError('internal', `error resolving passed in network volume address: ${asCetusError(err).message}`, {cause: err});
      }));
      // What stands for the device in words is the device.
      const performed = pinned ? calls.map((call) => (call.source ? {...call, source: pinned.path} : call)) : calls;
      const {failed, why} = await this.parts.mounter.mount(performed);
      if (failed === undefined) return;
      for (let n = this.depth(volumeId); n > 0; n -= 1) await this.parts.mounter.unmount(target);
      throw new CetusError('internal', `failed to mount local volume: ${withoutPassword(mountFailure(calls[failed]!, why!), options['o'])}`);
    } finally {
      await pinned?.release();
    }
  }

  private async pinned({device = '', o = ''}: Record<string, string>, target: string, within: string): Promise<Pin> {
    return await this.parts.pin(device, within).catch((err: NodeJS.ErrnoException) => {
      if (err.code !== 'ENOENT' && err.code !== 'ENOTDIR') throw err;
      const call = {op: 'mount' as const, source: device, target, type: '', ...parseMountOptions(o)};
      throw new CetusError('internal', `failed to mount local volume: ${mountFailure(call, 'no such file or directory')}`, {cause: err});
    });
  }

  private async unmount(volumeId: string): Promise<void> {
    for (let n = this.depth(volumeId); n > 0; n -= 1) await this.parts.mounter.unmount(this.parts.path(volumeId));
  }

  private depth(volumeId: string): number {
    const path = this.parts.path(volumeId);
    return this.parts.mounter.mounted(dirname(path)).get(path) ?? 0;
  }

  private driver(volumeId: string): DriverOptions | undefined {
    return readJson<DriverOptions>(this.file(volumeId));
  }

  private file(volumeId: string): string {
    return join(dirname(this.parts.path(volumeId)), FILE);
  }
}
