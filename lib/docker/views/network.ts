/** Networks and volumes as the Engine shows them. */
import type {Container} from '../../schema/container';
import type {Network, Volume} from '../../schema/objects';

export function networkView(network: Network, containers: readonly Container[]): object {
  return {
    Name: network.name,
    Id: network.id,
    Created: network.createdAt,
    Scope: network.scope,
    Driver: network.driver,
    EnableIPv4: network.enableIPv4,
    EnableIPv6: network.enableIPv6,
    IPAM: {
      Driver: 'default',
      Options: Object.keys(network.ipamOptions).length ? network.ipamOptions : null,
      Config: network.subnet ? [{
        Subnet: network.subnet,
        ...(network.ipRange ? {IPRange: network.ipRange} : {}),
        Gateway: network.gateway,
        ...(Object.keys(network.auxAddresses).length ? {AuxiliaryAddresses: network.auxAddresses} : {}),
      }] : [],
    },
    Internal: network.internal,
    Attachable: network.attachable,
    Ingress: network.ingress,
    ConfigFrom: {Network: ''},
    ConfigOnly: false,
    Containers: Object.fromEntries(containers.flatMap((container) => {
      const held = container.attachments.find((a) => a.networkId === network.id);
      return held ? [[container.id, {
        Name: container.name, EndpointID: held.endpointId, MacAddress: held.mac, IPv4Address: `${held.address}/${held.prefixLength}`, IPv6Address: '',
      }]] : [];
    })),
    Options: network.options,
    Labels: network.labels,
  };
}

export function volumeView(volume: Volume & {node?: string}, usage?: {size: number; refCount: number}): object {
  return {
    CreatedAt: volume.createdAt,
    Driver: volume.driver,
    Labels: Object.keys(volume.labels).length ? volume.labels : null,
    Mountpoint: volume.mountpoint,
    Name: volume.name,
    Options: Object.keys(volume.options).length ? volume.options : null,
    Scope: 'local',
    ...(volume.node ? {Status: {node: volume.node}} : {}),
    ...(usage ? {UsageData: {Size: usage.size, RefCount: usage.refCount}} : {}),
  };
}
