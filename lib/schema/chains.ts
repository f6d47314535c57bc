/**
 * The chains by name: what each takes, answers and refuses. lib/datacenter knows only this page; the steps are in lib/jobs.
 *
 * Division of labour: a verb validates, merges image config and request, resolves names to ids and mints ids; the chain decides on
 * fresh state under the target's lock and throws the Engine's own texts for what it then finds. Params are stored: never a credential.
 */
import type {Readable} from 'node:stream';
import type {WireError} from '../base/errors';
import type {BuiltNames, NodeImage, TakenBytes} from './agent';
import type {Container, Reservation} from './container';
import type {Config, EndpointSettings, RegistryAuth, Resources, RestartPolicy} from './docker';
import type {Network, Volume} from './objects';
import type {PlacementRequest} from './placement';

/** A container as the verb made it: status `created`, observation empty (generation 0), attachments and published ports empty. */
export type ContainerDraft = Omit<Container, 'node' | 'nodeId' | 'placement' | 'provisionJobId' | 'provisioning'>;

export interface ProvisionParams {
  container: ContainerDraft;
  /** `pinnedNodes` is found by the chain, from the volumes as they are when it places. */
  placement: Omit<PlacementRequest, 'pinnedNodes'>;
  /**
   * Volumes to make where no volume of that accountName exists, nodeId ''. Where one exists (somebody was faster), the chain uses it
   * and rewrites volumeIds and spec.mounts from the draft's id to the existing one's. The event `volume create` is the chain's.
   */
  volumes: Volume[];
}
/** conflict: the name is taken (Engine's text). noSpace / invalid: placement's. notFound: image, volume or network went away meanwhile. */
export interface ProvisionResult { containerId: string; nodeId: string; node: string }

/**
 * notModified: runs already. conflict: marked for removal, paused. internal, as the Engine's 500: a port is taken, no address is left.
 * A command that cannot be run: the agent's error; the container is left with exit code and error, and without addresses.
 */
export interface StartParams { containerId: string }
/** timeoutSeconds null: the container's own; -1 waits for ever. stop: notModified where nothing runs; restart starts what is stopped. */
export interface StopParams { containerId: string; timeoutSeconds: number | null; signal: string | null }
/** What a stop gives the container before it kills: what was asked for, else the container's own, else the Engine's 10 s. "For ever" is what a timer can hold. */
export function graceMsOf(asked: number | null | undefined, own: number | null | undefined): number {
  const seconds = asked ?? own ?? 10;
  return seconds < 0 ? MAX_GRACE_MS : Math.min(seconds * 1000, MAX_GRACE_MS);
}
export const MAX_GRACE_MS = 24 * 3_600_000;
/** conflict: not running. */
export interface KillParams { containerId: string; signal: string }
export interface PauseParams { containerId: string }
/** `name` without the leading slash. conflict: taken, in the Engine's words. */
export interface RenameParams { containerId: string; name: string }
/** `resources` holds only the changed fields; `reservation` is what the verb computed for the result, null where it does not change. */
export interface UpdateParams { containerId: string; resources: Resources; restartPolicy: RestartPolicy | null; reservation: Reservation | null }
/** conflict: running or paused without `force`. removeVolumes: its anonymous ones, where no other container uses them. */
export interface DestroyParams { containerId: string; force: boolean; removeVolumes: boolean }

/**
 * Forgets a container whose node is fenced; what the node has of it goes when it is back (container.clear). It waits for nobody: a job that holds the container since its node went away
 * finds it gone. conflict with `reached` in its info: the node is not fenced any more, or the container not there.
 */
export interface ForgetParams { containerId: string; from: string; removeVolumes: boolean }
/** Takes away what is left of a `Remains`. unavailable: the node is away (again). */
export interface ClearParams { nodeId: string; id: string; kind: 'container' | 'volume' }

/**
 * Places a container anew that its node has provably stopped, because it is fenced: same id, name and addresses; created there, and started where it ran. conflict: its
 * node is not fenced any more, or it may not move. noSpace: nobody can take it now; it stays where it is.
 */
export interface EvacuateParams { containerId: string; from: string }
/** As evacuate, from a node that answers: stopped with its own timeout, removed there, started elsewhere. For `drain`; conflict: the node is not being drained any more. */
export interface MoveParams { containerId: string; from: string }
export interface MovedResult { nodeId: string; node: string }

/** Progress messages are the Engine's ProgressMessage; credentials travel as `secrets: PullSecrets`. `node`: where to, default the datacenter's choice. */
export interface PullParams { account: string; reference: string; platform?: string; node?: string }
export interface PullSecrets { auth?: RegistryAuth }
export interface PullResult { imageId: string; reference: string; digest: string; upToDate: boolean }

/** The archive travels as `secrets: LoadSecrets`: it exists only in the process that accepted the request. `loadId`: a fresh uuid. */
export interface LoadParams { account: string; loadId: string; node?: string; /** "linux/arm64": the only one that may be loaded */ platform?: string }
export interface LoadSecrets { archive: Readable }
export interface LoadResult { images: {imageId: string; references: string[]}[] }

/** What builds of `hold`, on that node, made. `takeId`: a fresh uuid. */
export interface TakeParams { account: string; takeId: string; nodeId: string; hold: string; images: BuiltNames[] }
export interface TakeResult { images: {imageId: string; references: string[]}[] }
/** Archive or address travel as `secrets: ImportSecrets` (an address may hold a password). `importId`: a fresh uuid. `reference` (normalised): '' for none. */
export interface ImportParams { account: string; importId: string; reference: string; message: string; config: Config; platform?: string }
export type ImportSecrets = {archive: Readable} | {url: string};
export interface ImportResult { imageId: string }

/**
 * `config` is the image's, merged and changed by the verb; `containerConfig` what the container ran with. `reference` (normalised): the name to give it, '' for none.
 * notFound: the container went away meanwhile.
 */
export interface CommitParams { account: string; containerId: string; reference: string; author: string; comment: string; pause: boolean; config: Config; containerConfig: Config }
export interface CommitResult { imageId: string }

/** The image comes to be on that node too, from those that have it. notFound: it went away meanwhile. unavailable: nobody who has it can be reached. */
export interface ImageReplicateParams { account: string; imageId: string; nodeId: string }
/** `taken` null: it was there already. */
export interface ImageReplicateResult { taken: TakenBytes | null }
/** That node lets go of its copy, or of one that it has and should not. conflict: it is in use there, or the last one, or one of those that must be. */
/** False where somebody came to use it meanwhile. */
export interface ImageCollectResult { gone: boolean }
export interface ImageCollectParams { account: string; imageId: string; nodeId: string; /** for people */ why: string }

/**
 * `reference` (normalised): what the person named, if a name; '' if an id, or the digest form. `shown` is the name as the person wrote
 * it, for the texts. conflict: used by containers, several repositories, children (Engine's texts).
 */
export interface ImageRemoveParams {
  account: string;
  imageId: string;
  reference: string;
  shown: string;
  force: boolean;
  noPrune: boolean;
  /** conflict where it has a name: it goes only because another went. */
  nameless?: boolean;
  /** All its names go too, of however many repositories; conflict, as ever without force, where a container uses it. */
  unused?: boolean;
}
export type ImageRemoveResult = ({Untagged: string} | {Deleted: string})[];

/**
 * Bridge networks with subnet '' get one from the pools, gateway '' the first address. conflict: the name exists. forbidden: overlaps.
 * Predefined networks come through here too, with subnet '' (each account its own default network).
 */
export interface NetworkCreateParams { network: Network }
/** forbidden: active endpoints. */
export interface NetworkRemoveParams { networkId: string; account: string }
/** Works on running and on stopped containers. */
export interface NetworkConnectParams { containerId: string; networkId: string; settings: EndpointSettings }
export interface NetworkDisconnectParams { containerId: string; networkId: string; force: boolean }

/** Answers the existing volume where the name is taken, as the Engine does. */
export interface VolumeCreateParams { volume: Volume }
/** conflict: in use by containers. */
export interface VolumeRemoveParams { volumeId: string; force: boolean }

export interface ChainTypes {
  'container.provision': {params: ProvisionParams; result: ProvisionResult};
  'container.start': {params: StartParams; result: null};
  'container.stop': {params: StopParams; result: null};
  'container.restart': {params: StopParams; result: null};
  'container.kill': {params: KillParams; result: null};
  'container.pause': {params: PauseParams; result: null};
  'container.unpause': {params: PauseParams; result: null};
  'container.rename': {params: RenameParams; result: null};
  'container.update': {params: UpdateParams; result: null};
  'container.destroy': {params: DestroyParams; result: null};
  'container.forget': {params: ForgetParams; result: null};
  'container.clear': {params: ClearParams; result: null};
  'container.evacuate': {params: EvacuateParams; result: MovedResult};
  'container.move': {params: MoveParams; result: MovedResult};
  'image.pull': {params: PullParams; result: PullResult};
  'image.load': {params: LoadParams; result: LoadResult};
  'image.import': {params: ImportParams; result: ImportResult};
  'image.commit': {params: CommitParams; result: CommitResult};
  'image.take': {params: TakeParams; result: TakeResult};
  'image.remove': {params: ImageRemoveParams; result: ImageRemoveResult};
  'image.replicate': {params: ImageReplicateParams; result: ImageReplicateResult};
  'image.collect': {params: ImageCollectParams; result: ImageCollectResult};
  'network.create': {params: NetworkCreateParams; result: Network};
  'network.remove': {params: NetworkRemoveParams; result: null};
  'network.connect': {params: NetworkConnectParams; result: null};
  'network.disconnect': {params: NetworkDisconnectParams; result: null};
  'volume.create': {params: VolumeCreateParams; result: Volume};
  'volume.remove': {params: VolumeRemoveParams; result: null};
}
export type ChainName = keyof ChainTypes;
export type ChainParams<N extends ChainName> = ChainTypes[N]['params'];
export type ChainResult<N extends ChainName> = ChainTypes[N]['result'];

/** The lock's key for each kind of target. A verb that finds a lock can say who holds what. */
export const targets = {
  container: (id: string): string => `container/${id}`,
  image: (account: string, imageIdOrReference: string): string => `image/${account}/${imageIdOrReference}`,
  network: (id: string): string => `network/${id}`,
  volume: (id: string): string => `volume/${id}`,
} as const;

/** What image.pull and image.load keep of an agent's answer in the job, from act to plan. */
export interface FetchedImages { nodeId: string; images: NodeImage[]; upToDate: boolean; /** by image id, the nodes that got a copy as well */ copies?: Record<string, string[]>; error?: WireError }
