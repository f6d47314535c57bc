import type {ProxyProtocol} from './container';
import type {Descriptor, ExecConfig, ImageConfigFile} from './docker';

/** Bucket `accounts`, key = id. */
export interface Account { id: string; name: string; createdAt: string }

/** The account that owns everything on a datacenter without TLS identities. */
export const DEFAULT_ACCOUNT = 'default';

/** Bucket `images`, key = account/imageId. One image of one account, whatever the number of its names. */
export interface Image {
  id: string;
  account: string;
  manifestDigest: string;
  manifestMediaType: string;
  manifest: Descriptor;
  /** name@sha256:..., one per repository it was pulled from or pushed to. */
  repoDigests: string[];
  config: ImageConfigFile;
  layers: {digest: string; mediaType: string; /** compressed bytes */ size: number; diffId: string; /** unpacked bytes */ unpackedSize: number}[];
  /** Bytes of the unpacked layers. */
  size: number;
  /** Node ids whose content store has all blobs of this manifest and holds them for this account. A node that is lost stays in it: it may come back. At most 512: further nodes may have it. */
  nodes: string[];
  /** On how many nodes it must be, as far as there are so many: 2 where it exists only inside (loaded, imported, committed, built). Absent: 1, for a registry has it. */
  copies?: number;
  /** Nodes that are being told to let go of their copy (image.collect): no longer among `nodes`, and not to be used before they have. */
  leaving?: string[];
  parent?: string;
  createdAt: string;
  /** When it entered this datacenter. */
  addedAt: string;
  lastTaggedAt: string;
  /** Set while image.remove is under way: shown still, refused to new containers. */
  removing?: boolean;
}

/** Bucket `image_refs`, key = account/reference, e.g. "default/docker.io/library/busybox:latest". Exactly one image per name. */
export interface ImageRef { account: string; /** normalised, with registry and tag */ reference: string; imageId: string; taggedAt: string }

/** Bucket `networks`, key = id. */
export interface Network {
  id: string;
  account: string;
  name: string;
  accountName: string;
  driver: 'bridge' | 'host' | 'null';
  scope: 'local';
  internal: boolean;
  attachable: boolean;
  ingress: boolean;
  enableIPv4: boolean;
  enableIPv6: boolean;
  /** "172.18.0.0/16"; '' for host and null. */
  subnet: string;
  /** The datacenter chose it: then nobody can count on an address of it. */
  subnetOfPool?: boolean;
  gateway: string;
  ipRange: string;
  auxAddresses: Record<string, string>;
  options: Record<string, string>;
  ipamOptions: Record<string, string>;
  labels: Record<string, string>;
  /** Linux bridge on each node, at most 15 characters. */
  bridgeName: string;
  /** Number of its segment across nodes, 24 bits, no other network's in this datacenter. Only bridges have one; those made by an earlier version get it when a second node needs it. */
  vni?: number;
  /** bridge, host and none exist in every account and cannot be removed. */
  predefined: boolean;
  createdAt: string;
  /** Set while network.remove is under way: shown still, refused to new attachments. */
  removing?: boolean;
}

/**
 * Bucket `subnets`, key = the /16 block, e.g. "172.18.0.0". Which parts of the block are taken, by network id. A subnet is written into
 * every block that it touches, each write etag-guarded, so that two networks can never overlap.
 */
export interface SubnetBlock { block: string; networks: Record<string, string> }

/** Bucket `vnis`, key = the number in decimal: whose segment it is. A row exists exactly while the network does. */
export interface VniLease { vni: number; networkId: string }

/**
 * Bucket `addresses`, key = networkId/address: a row exists exactly while somebody holds the address. Of these rows the tables are made by which nodes
 * find each other's containers.
 */
export interface AddressLease {
  networkId: string;
  address: string;
  account: string;
  containerId: string;
  endpointId: string;
  mac: string;
  /** Where the container is. Earlier versions did not say. */
  nodeId?: string;
  /** As in the attachment; empty where the network knows no names. Earlier versions did not say. */
  aliases?: string[];
}

/**
 * Bucket `ports`, key = protocol/hostIp/hostPort: a row exists exactly while a container holds the port, which is the whole datacenter's. Endpoints open what
 * these rows say. Earlier versions began the key with the node's id, held ports per node, and had none of the optional fields.
 */
export interface PortLease {
  nodeId: string; protocol: string; hostIp: string; hostPort: number; account: string; containerId: string;
  containerPort?: number;
  /** As in the container's PublishedPort. */
  proxyProtocol?: ProxyProtocol;
  atEndpoints?: boolean;
}

/**
 * Bucket `ingresses`, key = the endpoint's name: what an endpoint says of its published ports. Written by that endpoint, when it changes and now and then;
 * taken away by it when it ends, and by any other once nothing has been heard of it for long (by the store's clock).
 */
export interface IngressRow {
  endpoint: string;
  /** IPv4 addresses of its machine, loopback left out: what may be given with -p. */
  addresses: string[];
  /** `standby`: another endpoint of the same machine and datacenter has the ports there. */
  duty: 'serving' | 'standby';
  /** Ports that are open here. */
  open: number;
  /** Ports that should be and cannot: another program has them. The first hundred. */
  refused: {protocol: string; address: string; port: number; containerId: string; reason: string}[];
}

/** Bucket `volumes`, key = id. */
export interface Volume {
  id: string;
  account: string;
  name: string;
  accountName: string;
  driver: 'local';
  options: Record<string, string>;
  labels: Record<string, string>;
  anonymous: boolean;
  /** '' until the first use places it. */
  nodeId: string;
  mountpoint: string;
  createdAt: string;
  /** Where its options bind a directory: the allowed one that it is below by its name. */
  within?: string;
  /** Set while volume.remove is under way: shown still, refused to new containers. */
  removing?: boolean;
}

/** Bucket `execs`, key = id. What was asked; whether it runs and how it ended the agent knows, and reports at the end. */
export interface Exec {
  id: string;
  account: string;
  containerId: string;
  nodeId: string;
  config: ExecConfig;
  running: boolean;
  exitCode: number | null;
  pid: number;
  createdAt: string;
}

export type EventType = 'container' | 'image' | 'volume' | 'network' | 'daemon' | 'builder' | 'node';

/** Bucket `events`, key = time in ns (20 digits) + '-' + random suffix: keys sort as time does. */
export interface DatacenterEvent {
  account: string;
  type: EventType;
  /** As the Engine names it: create, start, die, "exec_create: sh", ... */
  action: string;
  actorId: string;
  attributes: Record<string, string>;
  /** Nanoseconds since the epoch, as a decimal string. */
  timeNs: string;
}
