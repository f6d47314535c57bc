/**
 * The published ports of a sandbox: the sockets that hold them on the host, so that nobody else binds them, and where they lead to. Their rules
 * are made by whoever makes the sandbox.
 */
import {CetusError} from '../../base/errors';
import type {NodeNetwork} from '../../schema/agent';
import type {PublishedPort} from '../../schema/container';
import type {Plug} from './links';
import {optionsOf} from './names';
import type {SandboxRequest} from './network';
import {addressInUse, alreadyAllocated, cannotAssign, overlap} from './ports';
import type {Records, SandboxRecord} from './records';
import type {Reservations} from './reservations';
import type {Publication} from './rules';

export class PublishedPorts {
  constructor(private readonly networks: Records<NodeNetwork>, private readonly sandboxes: Records<SandboxRecord>, private readonly reservations: Reservations) {}

  /** All of the request's or none; `conflict` in the Engine's words where one is taken. */
  async reserve(request: SandboxRequest, record: SandboxRecord): Promise<void> {
    const held: PublishedPort[] = [];
    try {
      for (const port of request.ports) {
        const bound = this.bound(record, port);
        if (this.sandboxes.all().some(s => s.containerId !== request.containerId && s.ports.some(p => overlap(this.bound(s, p), bound))))
          throw alreadyAllocated(request, bound);
        await this.reservations.hold(bound).catch((err: NodeJS.ErrnoException) => {
          if (err.code === 'EADDRINUSE') throw addressInUse(request, bound, err);
          if (err.code === 'EADDRNOTAVAIL') throw cannotAssign(request, bound, err);
          throw new CetusError('internal', `reserve port ${bound.hostPort}/${bound.protocol}`, {cause: err});
        });
        held.push(bound);
      }
    } catch (err) {
      await Promise.all(held.map(port => this.reservations.release(port)));
      throw err;
    }
  }

  /** Those of a sandbox that is on record already. */
  async holdAgain(record: SandboxRecord, failed: (err: unknown, port: PublishedPort) => void): Promise<void> {
    for (const port of record.ports) await this.reservations.hold(this.bound(record, port)).catch((err: unknown) => failed(err, port));
  }

  async release(record: SandboxRecord): Promise<void> {
    await Promise.all(record.ports.map(port => this.reservations.release(this.bound(record, port))));
  }

  /** What the rules forward, and where to. */
  publications(record: SandboxRecord): Publication[] {
    const plug = gatewayPlug(record);
    if (!plug) return [];
    return record.ports.map(port => ({...this.bound(record, port), address: plug.attachment.address, containerPort: port.containerPort}));
  }

  address(record: SandboxRecord): string {
    const plug = gatewayPlug(record);
    if (!plug) throw new CetusError('conflict', `container ${record.containerId} is on no network that publishes ports`);
    return plug.attachment.address;
  }

  /** Where a port is bound: at its own address, or at the one that the network's options give. */
  private bound(record: SandboxRecord, port: PublishedPort): PublishedPort {
    if (port.hostIp) return port;
    const plug = gatewayPlug(record);
    const network = plug && this.networks.get(plug.networkId);
    return network ? {...port, hostIp: optionsOf(network).hostBinding} : port;
  }
}

/** Published ports lead to the network of the default route; internal networks publish nothing. */
function gatewayPlug(record: SandboxRecord): Plug | undefined {
  const outward = record.plugs.filter(p => !p.attachment.internal);
  return outward.find(p => p.attachment.isDefaultRoute) ?? outward[0];
}
