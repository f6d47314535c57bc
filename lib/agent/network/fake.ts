/**
 * NodeNetworking in memory, for tests and for simulated fleets: same repeatability and same refusals as `linux`, no kernel.
 * `occupy` plays the foreign program that holds a host port.
 */
import {CetusError} from '../../base/errors';
import type {NodeNetwork} from '../../schema/agent';
import type {NetworkAttachment, PublishedPort} from '../../schema/container';
import type {NodeNetworking, SandboxRequest} from './network';
import {alreadyAllocated, addressInUse, overlap, portKey} from './ports';

interface FakeSandbox { attachments: Map<string, NetworkAttachment>; ports: PublishedPort[]; netnsPath: string }

export interface FakeNetworking extends NodeNetworking {
  occupy(port: Pick<PublishedPort, 'protocol' | 'hostIp' | 'hostPort'>): void;
  vacate(port: Pick<PublishedPort, 'protocol' | 'hostIp' | 'hostPort'>): void;
  attachmentsOf(containerId: string): NetworkAttachment[];
}

export function createFakeNetworking(): FakeNetworking {
  const networks = new Map<string, NodeNetwork>();
  const sandboxes = new Map<string, FakeSandbox>();
  const foreign = new Map<string, Pick<PublishedPort, 'protocol' | 'hostIp' | 'hostPort'>>();

  const sandbox = (containerId: string): FakeSandbox => {
    const found = sandboxes.get(containerId);
    if (!found) throw new CetusError('notFound', `no network sandbox for container ${containerId}`);
    return found;
  };
  const make = (containerId: string): FakeSandbox => ({attachments: new Map(), ports: [], netnsPath: `/run/cetus-fake/netns/${containerId}`});

  return {
    async open() {},
    async ensureNetwork(network) { networks.set(network.id, network); },
    async removeNetwork(networkId) {
      const users = [...sandboxes].filter(([, s]) => s.attachments.has(networkId)).map(([id]) => id);
      if (users.length) throw new CetusError('conflict', `network ${networks.get(networkId)?.name ?? networkId} has active endpoints`, {info: {containers: users}});
      networks.delete(networkId);
    },
    async applyTable() {},
    async createSandbox(request: SandboxRequest) {
      const existing = sandboxes.get(request.containerId);
      if (existing) return {netnsPath: existing.netnsPath};
      for (const port of request.ports) {
        for (const [id, other] of sandboxes)
          if (id !== request.containerId && other.ports.some(p => overlap(p, port))) throw alreadyAllocated(request, port);
        if ([...foreign.values()].some(p => overlap(p, port))) throw addressInUse(request, port);
      }
      const made = make(request.containerId);
      for (const network of request.networks) networks.set(network.id, network);
      for (const attachment of request.attachments) {
        if (!networks.has(attachment.networkId)) throw new CetusError('notFound', `network ${attachment.networkId} not found`);
        made.attachments.set(attachment.networkId, attachment);
      }
      made.ports = request.ports;
      sandboxes.set(request.containerId, made);
      return {netnsPath: made.netnsPath};
    },
    async createEmptySandbox(containerId) {
      const made = sandboxes.get(containerId) ?? make(containerId);
      sandboxes.set(containerId, made);
      return {netnsPath: made.netnsPath};
    },
    async connect(containerId, network, attachment) {
      networks.set(network.id, network);
      sandbox(containerId).attachments.set(network.id, attachment);
    },
    async disconnect(containerId, networkId) { sandboxes.get(containerId)?.attachments.delete(networkId); },
    async rename() {},
    async removeSandbox(containerId) { sandboxes.delete(containerId); },
    async sandboxes() { return [...sandboxes.keys()]; },
    async bridges() { return [...networks.values()].map(n => n.bridgeName); },
    async resolvConf() { return {nameservers: ['192.0.2.53'], search: [], options: []}; },
    async publishedPorts() { return [...sandboxes.values()].flatMap(s => s.ports); },
    async publishedAddress(containerId) {
      const [first] = [...sandbox(containerId).attachments.values()].filter(a => !a.internal);
      if (!first) throw new CetusError('conflict', `container ${containerId} is on no network that publishes ports`);
      return first.address;
    },
    async close() {},
    occupy(port) { foreign.set(portKey(port), port); },
    vacate(port) { foreign.delete(portKey(port)); },
    attachmentsOf(containerId) { return [...sandbox(containerId).attachments.values()]; },
  };
}
