/**
 * Images as an archive for the engine's `load`, with only the layers that it lacks: for one that it has the name of a file is enough, which it
 * then does not look for.
 */
import fs from 'node:fs';
import path from 'node:path';
import {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {pack, type Pack} from 'tar-stream';
import {decompress} from '../images/archive/decompress';
import type {LentImage} from '../images/lending';
import type {LayerToUnpack} from '../images/unpack';

export function imagesArchive(images: {image: LentImage; names: string[]}[], lacking: ReadonlySet<string>, blob: (digest: string) => Readable, scratch: string): Readable {
  const tar = pack();
  write(tar, images, lacking, blob, scratch).catch((err: Error) => tar.destroy(err));
  return Readable.from(tar as unknown as AsyncIterable<Buffer>, {objectMode: false});
}

async function write(tar: Pack, images: {image: LentImage; names: string[]}[], lacking: ReadonlySet<string>, blob: (digest: string) => Readable, scratch: string): Promise<void> {
  const written = new Set<string>();
  for (const {image} of images) {
    tar.entry({name: configName(image)}, image.config);
    for (const layer of image.layers) {
      if (!lacking.has(layer.chainId) || written.has(layer.chainId)) continue;
      written.add(layer.chainId);
      await writeLayer(tar, layer, blob, scratch);
    }
  }
  tar.entry({name: 'manifest.json'}, JSON.stringify(images.map(({image, names}) => (
    {Config: configName(image), RepoTags: names.length > 0 ? names : null, Layers: image.layers.map(layerName)}))));
  tar.finalize();
}

/** Plain and gzip the engine reads as they are; zstd older ones do not, and what comes out of it has a length only when it is out. */
async function writeLayer(tar: Pack, layer: LayerToUnpack, blob: (digest: string) => Readable, scratch: string): Promise<void> {
  if (!layer.layer.mediaType.endsWith('zstd')) {
    await pipeline(blob(layer.layer.digest), tar.entry({name: layerName(layer), size: layer.layer.size}) as unknown as NodeJS.WritableStream);
    return;
  }
  const file = path.join(scratch, `layer-${layer.diffId.slice(-12)}.tar`);
  try {
    await pipeline(await decompress(blob(layer.layer.digest)), fs.createWriteStream(file));
    await pipeline(fs.createReadStream(file), tar.entry({name: layerName(layer), size: fs.statSync(file).size}) as unknown as NodeJS.WritableStream);
  } finally {
    fs.rmSync(file, {force: true});
  }
}

const configName = (image: LentImage): string => `${image.imageId.slice('sha256:'.length)}.json`;
const layerName = (layer: LayerToUnpack): string => `${layer.chainId.slice('sha256:'.length)}/layer.tar`;
