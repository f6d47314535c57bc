/**
 * Unpacks layers while the archive that brings them is still being read. Archives name their images at the end, but a config tells the order of
 * its layers wherever it stands: from then on each layer that is next and here is unpacked. A guess costs nothing but time: what was unpacked
 * in vain goes with the hold, and a failure here is left for the real unpacking to meet and to report.
 */
import type {Descriptor} from '../../schema/docker';
import {isDigest} from '../../schema/reference';
import {compressionOf} from './archive/decompress';
import type {StoredFile} from './archive/reader';
import {chainIds, MEDIA} from './manifest';
import type {LayerToUnpack} from './unpack';

/** More images in one archive than this are unpacked when it has been read. */
const MAX_IMAGES = 8;
const MAX_LAYERS = 127;

interface Known { diffIds: string[]; chain: string[]; /** layers of a manifest that names this config; [] while none is known */ layers: Descriptor[]; next: number }

export class EarlyUnpack {
  private readonly images = new Map<string, Known>();
  private readonly layersOf = new Map<string, Descriptor[]>();
  private readonly stored = new Map<string, StoredFile>();
  private running: Promise<void> | undefined;
  private stopped = false;

  constructor(private readonly unpack: (step: LayerToUnpack) => Promise<void>) {}

  /** A blob has come; `document` is its text where it may be a config or a manifest. */
  add(file: StoredFile, document: Buffer | undefined): void {
    this.stored.set(file.digest, file);
    if (document) this.look(file.digest, document);
    this.running ??= this.advance().finally(() => {
      this.running = undefined;
    });
  }

  /** Nothing runs any more afterwards. */
  async finish(): Promise<void> {
    this.stopped = true;
    await this.running;
  }

  private look(digest: string, document: Buffer): void {
    if (this.images.size >= MAX_IMAGES) return;
    let value: {rootfs?: {diff_ids?: unknown}; config?: {digest?: unknown}; layers?: unknown} | null;
    try {
      value = JSON.parse(document.toString('utf8')) as typeof value;
    } catch {
      return;
    }
    const diffIds = value?.rootfs?.diff_ids;
    if (Array.isArray(diffIds) && diffIds.length <= MAX_LAYERS && diffIds.every((d): d is string => typeof d === 'string' && isDigest(d)))
      this.images.set(digest, {diffIds, chain: chainIds(diffIds), layers: this.layersOf.get(digest) ?? [], next: 0});
    const config = value?.config?.digest;
    if (typeof config !== 'string' || !Array.isArray(value?.layers) || value.layers.length > MAX_LAYERS || this.layersOf.size >= MAX_IMAGES) return;
    const layers = value.layers as Descriptor[];
    if (!layers.every((l) => typeof l?.digest === 'string' && typeof l.mediaType === 'string')) return;
    this.layersOf.set(config, layers);
    const known = this.images.get(config);
    if (known) known.layers = layers;
  }

  private async advance(): Promise<void> {
    for (let found = true; found && !this.stopped;) {
      found = false;
      for (const image of this.images.values()) {
        const step = this.nextStep(image);
        if (!step || this.stopped) continue;
        found = true;
        image.next += 1;
        try {
          await this.unpack(step);
        } catch {
          // The real unpacking will meet it again.
          image.next = Infinity;
        }
      }
    }
  }

  private nextStep({diffIds, chain, layers, next}: Known): LayerToUnpack | undefined {
    const diffId = diffIds[next];
    if (diffId === undefined) return undefined;
    const named = layers.length === diffIds.length ? layers[next] : undefined;
    const file = this.stored.get(named?.digest ?? diffId);
    // Without a manifest only an uncompressed layer can be told: its digest is its diff id.
    if (!file || (!named && compressionOf(file.head) !== 'none')) return undefined;
    const layer = {mediaType: named?.mediaType ?? MEDIA.dockerLayer, digest: file.digest, size: file.size};
    return {layer, diffId, chainId: chain[next], parent: next === 0 ? '' : chain[next - 1]};
  }
}
