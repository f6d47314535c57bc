/** What the agent asks of the node's network. Repeatable throughout; `linux` does it with iproute2 and nft, `fake` in memory. */
import type {NetworkTable, NodeNetwork} from '../../schema/agent';
import type {NetworkAttachment, PublishedPort} from '../../schema/container';

export interface SandboxRequest {
  containerId: string;
  hostname: string;
  /** For error texts, which name the container; default: the hostname. */
  containerName?: string;
  networks: NodeNetwork[];
  attachments: NetworkAttachment[];
  ports: PublishedPort[];
  /** Servers of its own for what is not a name on its networks (--dns); default: the node's. */
  dns?: string[];
}

/** `ours`: a server of ours, which passes on to the container's own servers by itself. */
export interface ResolvSettings { nameservers: string[]; search: string[]; options: string[]; ours?: boolean }

export interface NodeNetworking {
  open(): Promise<void>;
  /** Bridge, gateway address, NAT and isolation rules. */
  ensureNetwork(network: NodeNetwork): Promise<void>;
  removeNetwork(networkId: string): Promise<void>;
  /** Who is where on other nodes, merged into what is known; resolves when packets and names go there. Nothing on a node without an underlay. */
  applyTable(network: NodeNetwork, table: NetworkTable): Promise<void>;
  /**
   * A network namespace with its interfaces plugged in and its ports published; returns the path for the OCI spec.
   * Prepared namespaces are kept warm, so this costs little. `conflict` where a host port is taken by a foreign program,
   * worded as the Engine does ("... port is already allocated" / "address already in use").
   */
  createSandbox(request: SandboxRequest): Promise<{netnsPath: string}>;
  connect(containerId: string, network: NodeNetwork, attachment: NetworkAttachment): Promise<void>;
  disconnect(containerId: string, networkId: string): Promise<void>;
  /** Others find it by its new name. Nothing where it has no sandbox. */
  rename(containerId: string, from: string, to: string): Promise<void>;
  removeSandbox(containerId: string): Promise<void>;
  /** A namespace with loopback only, for `--network none`. */
  createEmptySandbox(containerId: string): Promise<{netnsPath: string}>;
  /** Sandboxes that exist, by container id: after an agent restart, and for leak checks. */
  sandboxes(): Promise<string[]>;
  bridges(): Promise<string[]>;
  /** Nameservers and search for resolv.conf: the gateway that answers DNS, or the host's own servers where none does. */
  resolvConf(attachments: NetworkAttachment[]): Promise<ResolvSettings>;
  publishedPorts(): Promise<PublishedPort[]>;
  /** Where published ports of a container lead to. `conflict` where it has no such address. */
  publishedAddress(containerId: string): Promise<string>;
  close(): Promise<void>;
}
