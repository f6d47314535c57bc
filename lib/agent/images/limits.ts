/** What one image may cost a node: every number a stranger's registry or archive could otherwise choose. */
import {GiB, MiB} from '../../base/units';

export interface ImageLimits {
  /** Manifests, indexes, configs and other JSON; they are held in memory. */
  documentBytes: number;
  /** One layer as transferred. */
  layerBytes: number;
  /** One layer unpacked; a bomb is stopped soon after it passes this. */
  unpackedLayerBytes: number;
  /** Unpacking stops when the disk would have less than this left. */
  freeDiskBytes: number;
  layers: number;
  /** Entries of an archive, and the bytes of all of them. */
  archiveEntries: number;
  archiveBytes: number;
  /** Layers of one pull that are fetched at a time. */
  parallelLayers: number;
  /** Layers of one push that are sent at a time, and how much of one goes in one request. */
  parallelUploads: number;
  uploadBytes: number;
  /** A connection that brings nothing for so long is given up. */
  stallMs: number;
  connectMs: number;
  /** After so long without progress nothing is tried again: the pull ends within twice this. */
  patienceMs: number;
  /** Tries of one request or one layer; a try that brought bytes starts the count anew. */
  tries: number;
  /** A peer that brings next to nothing for so long is given up. */
  peerStallMs: number;
  /** Blobs that are served to other nodes at a time. */
  servedBlobs: number;
  /** The longest one layer may unpack, and one blob may be committed. */
  unpackMs: number;
}

export const DEFAULT_LIMITS: ImageLimits = {
  documentBytes: 4 * MiB,
  layerBytes: 64 * GiB,
  unpackedLayerBytes: 64 * GiB,
  freeDiskBytes: 512 * MiB,
  layers: 127,
  archiveEntries: 20_000,
  archiveBytes: 256 * GiB,
  parallelLayers: 3,
  parallelUploads: 5,
  uploadBytes: 16 * MiB,
  stallMs: 30_000,
  connectMs: 15_000,
  patienceMs: 45_000,
  tries: 5,
  peerStallMs: 10_000,
  servedBlobs: 16,
  unpackMs: 60 * 60_000,
};
