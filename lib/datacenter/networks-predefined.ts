/** bridge, host and none: every account has its own, made when it is first needed. */
import {isCetusError} from '../base/errors';
import {formatNs} from '../base/clock';
import {eq, oneOf} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import type {Network} from '../schema/objects';
import type {Context} from './context';
import type {Caller} from './verbs';

export const PREDEFINED = ['bridge', 'host', 'none'] as const;
export type Predefined = (typeof PREDEFINED)[number];
const DRIVER = {bridge: 'bridge', host: 'host', none: 'null'} as const;

export function networkDraft(context: Context, account: string, name: string, more: Partial<Network>): Network {
  const id = context.ids.hex64();
  return {
    id, account, name, accountName: `${account}/${name}`, driver: 'bridge', scope: 'local', internal: false, attachable: false, ingress: false, enableIPv4: true, enableIPv6: false,
    subnet: '', gateway: '', ipRange: '', auxAddresses: {}, options: {}, ipamOptions: {}, labels: {},
    // A Linux interface name has at most 15 characters.
    bridgeName: `ce-${id.slice(0, 12)}`, predefined: false, createdAt: formatNs(context.clock.nowNs()), ...more,
  };
}

/** They never change and are never removed, so that knowing them once is knowing them for ever. */
export class PredefinedNetworks {
  private readonly known = new Map<string, Promise<Record<Predefined, Network>>>();

  constructor(private readonly context: Context) {}

  of(caller: Caller): Promise<Record<Predefined, Network>> {
    let networks = this.known.get(caller.account);
    if (!networks) {
      networks = this.ensure(caller);
      this.known.set(caller.account, networks);
      networks.catch(() => this.known.delete(caller.account));
    }
    return networks;
  }

  /** Where the steps of the account's builds are: a bridge like its own, which is in nobody's list, because no container of a list can be there. */
  async builds(caller: Caller): Promise<Network> {
    return (await this.of({...caller, account: `${caller.account}/builds`})).bridge;
  }

  private async find(account: string): Promise<Partial<Record<Predefined, Network>>> {
    const found = await this.context.moray.list<Network>(BUCKETS.networks.name, oneOf('accountName', PREDEFINED.map((name) => `${account}/${name}`)));
    return Object.fromEntries(found.map(({value}) => [value.name, value]));
  }

  private async ensure(caller: Caller): Promise<Record<Predefined, Network>> {
    const found = await this.find(caller.account);
    for (const name of PREDEFINED) {
      if (found[name]) continue;
      const draft = networkDraft(this.context, caller.account, name, {driver: DRIVER[name], predefined: true, ...(name === 'bridge'
        ? {options: {'com.docker.network.bridge.default_bridge': 'true', 'com.docker.network.bridge.enable_icc': 'true', 'com.docker.network.bridge.enable_ip_masquerade': 'true',
          'com.docker.network.bridge.host_binding_ipv4': '0.0.0.0', 'com.docker.network.bridge.name': 'docker0', 'com.docker.network.driver.mtu': '1500'}} : {})});
      try {
        found[name] = await this.context.run(caller, 'network.create', {network: draft});
      } catch (err) {
        // Another process was faster.
        if (!isCetusError(err, 'conflict')) throw err;
        const [other] = await this.context.moray.list<Network>(BUCKETS.networks.name, eq('accountName', `${caller.account}/${name}`));
        if (!other) throw err;
        found[name] = other.value;
      }
    }
    return found as Record<Predefined, Network>;
  }
}
