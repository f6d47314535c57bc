/** What the agent asks of its image store: containerd's content store, snapshots and diff service behind it. */
import type {Readable} from 'node:stream';
import type {EnsureLine, EnsureRequest, ImportLine, ImportRequest, LoadLine, NodeImage, NodeImages, PullLine, PullRequest, PushLine, PushRequest, RegistryAnswers, RegistryQuestion, SaveRequest} from '../../schema/agent';
import type {ImageConfigFile, RegistryAuth} from '../../schema/docker';
import type {CommitRequest} from './commit';
import type {BlobServing} from './peers/serving';

export interface AgentImages {
  pull(request: PullRequest, auth: RegistryAuth | undefined, signal: AbortSignal): AsyncIterable<PullLine>;
  /** An image that others have, on this node too. */
  ensure(request: EnsureRequest, auth: RegistryAuth | undefined, signal: AbortSignal): AsyncIterable<EnsureLine>;
  /** `account` holds what was loaded until `remove`; default: the default account. `platform`: nothing else may be loaded; default: the node's own is preferred. */
  load(archive: Readable, signal: AbortSignal, account?: string, platform?: string): AsyncIterable<LoadLine>;
  /** `archive` is read unless the request names a URL, and ended in any case. */
  import(request: ImportRequest, archive: Readable, signal: AbortSignal): AsyncIterable<ImportLine>;
  push(request: PushRequest, auth: RegistryAuth | undefined, signal: AbortSignal): AsyncIterable<PushLine>;
  /** Nothing is fetched or kept. */
  askRegistry<Q extends RegistryQuestion>(question: Q, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<RegistryAnswers[Q['kind']]>;
  /** A tar: OCI layout plus manifest.json; blobs byte for byte as stored. */
  save(request: SaveRequest, signal: AbortSignal): Promise<Readable>;
  /** A container's files as an image; see commit.ts. */
  commit(request: CommitRequest): Promise<NodeImage>;
  /**
   * Chain id of the unpacked top layer and the image's config; unpacks where needed; notFound where blobs are missing. `trusting`: what was
   * unpacked once in this life is not looked at again (a call to containerd less); whoever then misses the layers asks without it.
   */
  prepare(imageId: string, manifestDigest: string, options?: {trusting?: boolean}): Promise<{parentSnapshot: string; config: ImageConfigFile}>;
  /** Takes the account's hold away; blobs and snapshots go when no account holds the image. Repeatable. */
  remove(imageId: string, account: string): Promise<void>;
  list(): Promise<string[]>;
  /** Of those the ones of which a blob is gone: somebody removed it behind the agent's back. */
  lacking(): Promise<string[]>;
  /** Who holds what here. */
  held(): Promise<NodeImages>;
  /** This node's blobs, for others. */
  readonly serving: BlobServing;
}
