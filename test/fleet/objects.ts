/** Whole stored objects for fleet's tests; each test names only what it is about. */
import {ZERO_TIME} from '../../lib/base/clock';
import type {Container, ContainerObservation} from '../../lib/schema/container';
import type {NodeFacts} from '../../lib/schema/node';

export function anObservation(part: Partial<ContainerObservation> = {}): ContainerObservation {
  return {
    containerId: 'c1', generation: 1, status: 'created', pid: 0, exitCode: 0, error: '', oomKilled: false,
    startedAt: ZERO_TIME, finishedAt: ZERO_TIME, restartCount: 0, ...part,
  };
}

export function aContainer(part: Partial<Container> = {}): Container {
  const id = part.id ?? 'c1';
  const name = part.name ?? 'web';
  return {
    id, account: 'default', name, accountName: `default/${name}`,
    spec: {
      id, account: 'default', name, image: {id: 'sha256:1', reference: 'busybox', manifestDigest: 'sha256:2'},
      config: {Image: 'busybox'}, hostConfig: {}, logConfig: {}, mounts: [], networkMode: 'networks', createdAt: '2026-01-01T00:00:00Z',
    },
    imageReference: 'busybox', imageId: 'sha256:1', node: 'alpha', nodeId: 'n1', status: 'created',
    observation: anObservation({containerId: id}), autoRemove: false, labels: {tier: 'front'}, networks: {}, attachments: [],
    requestedPorts: [], publishedPorts: [], volumeIds: [], anonymousVolumeIds: [],
    reservation: {memoryBytes: 0, nanoCpus: 0, diskBytes: 0, pids: 0}, provisionJobId: '', placement: null,
    createdAt: '2026-01-01T00:00:00Z', createdAtNs: '1767225600000000000', ...part,
  };
}

export function someFacts(part: Partial<NodeFacts> = {}): NodeFacts {
  return {
    nodeId: 'n1', name: 'alpha', platform: 'linux/amd64', architecture: 'x86_64', kernelVersion: '6.1.0', operatingSystem: 'Debian GNU/Linux 12', osType: 'linux',
    cpus: 2, memoryBytes: 2 ** 32, diskBytes: 2 ** 36, pids: 32768, cgroupVersion: 1, cgroupDriver: 'cgroupfs', containerdVersion: '1.6.20', runcVersion: '1.1.5',
    snapshotter: 'overlayfs', agentUrl: 'unix:///nowhere/agent.sock', agentVersion: '0.1.0', labels: {}, bootGeneration: 1, ...part,
  };
}
