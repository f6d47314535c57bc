/** The verbs on networks. Each account has its own bridge, host and none; subnets are unique in the datacenter. */
import {CetusError, isCetusError} from '../base/errors';
import {eq} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import {type Container, NO_NETWORK} from '../schema/container';
import type {Network} from '../schema/objects';
import {pruned} from './events';
import {mustReach} from './containers/lost';
import {isUp, resolveContainer} from './containers/resolve';
import type {Context} from './context';
import {checkEndpointSettings} from './create/networking';
import {acceptFilters, booleanFilter, has, idMatcher, labelFilters, labelsMatch, nameMatcher, untilFilter, valuesOf} from './filters';
import {networkDraft, type PredefinedNetworks} from './networks-predefined';
import {networkRequest} from './networks-request';
import {resolveNetwork} from './networks-resolve';
import type {Caller, NetworkVerbs} from './verbs';

const BUCKET = BUCKETS.networks.name;
const OF_THE_HOST = 'container cannot be disconnected from host network or connected to host network';
const invalid = (message: string): CetusError => new CetusError('invalid', message);

const isOn = (network: Network, c: Container): boolean => Object.values(c.networks).some((r) => r.networkId === network.id);

/** What cannot be plugged in, in the Engine's words and order: into containers without a network of their own, the host's network, and none beside any other. */
function refuseNotPluggable(network: Network, c: Container): void {
  const {name, networks, spec: {networkMode: mode}} = c;
  if (isOn(network, c)) throw new CetusError('forbidden', `endpoint with name ${name} already exists in network ${network.name}`);
  if (mode === 'host' || mode.startsWith('container:')) throw invalid('container sharing network namespace with another container or host cannot be connected to any other network');
  if (network.driver === 'host') throw invalid(OF_THE_HOST);
  if (networks[NO_NETWORK] || (network.driver === 'null' && Object.keys(networks).length > 0)) throw invalid('container cannot be connected to multiple networks with one of the networks in private (none) mode');
}

export function networkVerbs(context: Context, predefined: PredefinedNetworks): NetworkVerbs {
  const resolve = (caller: Caller, nameOrId: string): Promise<Network> => resolveNetwork(context, predefined, caller, nameOrId);
  const all = async (caller: Caller): Promise<Network[]> => {
    await predefined.of(caller);
    return (await context.moray.list<Network>(BUCKET, eq('account', caller.account))).map((s) => s.value).sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
  };
  const attachedNetworks = async (account: string): Promise<Set<string>> => new Set((await context.views.list(account)).flatMap((c) => c.attachments.map((a) => a.networkId)));

  return {
    async create(caller, body) {
      const asked = networkRequest(body);
      await predefined.of(caller);
      const draft = networkDraft(context, caller.account, body.Name, asked);
      const network = await context.run(caller, 'network.create', {network: draft});
      return {id: network.id, warning: ''};
    },

    async list(caller, filters) {
      acceptFilters(filters, ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type']);
      for (const type of valuesOf(filters, 'type')) if (type !== 'custom' && type !== 'builtin') throw invalid(`invalid filter: 'type'='${type}'`);
      const dangling = booleanFilter(filters, 'dangling');
      const named = nameMatcher(filters, 'name');
      const ids = idMatcher(filters, 'id');
      const attached = dangling === undefined ? undefined : await attachedNetworks(caller.account);
      const any = (name: string, test: (value: string) => boolean): boolean => !has(filters, name) || valuesOf(filters, name).some(test);
      return (await all(caller)).filter((n) => named(n.name) && ids(n.id) && any('driver', (v) => v === n.driver) && any('scope', (v) => v === n.scope)
        && labelsMatch(valuesOf(filters, 'label'), n.labels) && any('type', (v) => (v === 'builtin') === n.predefined)
        && (attached === undefined || (!n.predefined && !attached.has(n.id)) === dangling));
    },

    get: resolve,

    async containers(caller, network) {
      return (await context.views.list(caller.account)).filter((c) => c.attachments.some((a) => a.networkId === network.id));
    },

    async remove(caller, nameOrId) {
      const network = await resolve(caller, nameOrId);
      if (network.predefined) throw new CetusError('forbidden', `${network.name} is a pre-defined network and cannot be removed`);
      await context.run(caller, 'network.remove', {networkId: network.id, account: caller.account});
    },

    async connect(caller, nameOrId, containerNameOrId, settings) {
      const [network, c] = [await resolve(caller, nameOrId), await resolveContainer(context, caller.account, containerNameOrId)];
      if (network.removing) throw new CetusError('notFound', `network ${nameOrId} not found`);
      // What one that does not run has already is neither a mistake nor a change.
      if (isOn(network, c) && (c.status === 'created' || c.status === 'exited')) return checkEndpointSettings(network, settings);
      refuseNotPluggable(network, c);
      checkEndpointSettings(network, settings);
      try {
        if (isUp(c)) await mustReach(context, c);
        await context.run(caller, 'network.connect', {containerId: c.id, networkId: network.id, settings});
      } finally {
        context.views.touch(caller.account, c.id);
      }
    },

    async disconnect(caller, nameOrId, containerNameOrId, force) {
      const network = await resolve(caller, nameOrId);
      const c = await resolveContainer(context, caller.account, containerNameOrId).catch((err: unknown) => {
        // Forced, the Engine looks for a place of that name on the network, whoever had it.
        throw force && isCetusError(err, 'notFound') ? new CetusError('notFound', `endpoint ${containerNameOrId} not found`, {cause: err}) : err;
      });
      if (!c.networks[network.name] && !c.attachments.some((a) => a.networkId === network.id)) {
        // Of one that runs the Engine leaves a word out.
        throw new CetusError('forbidden', `container ${c.id} is not connected to ${c.status === 'running' || c.status === 'paused' ? '' : 'the '}network ${network.name}`);
      }
      if (network.driver === 'host') throw invalid(OF_THE_HOST);
      try {
        if (isUp(c) && !force) await mustReach(context, c);
        await context.run(caller, 'network.disconnect', {containerId: c.id, networkId: network.id, force});
      } finally {
        context.views.touch(caller.account, c.id);
      }
    },

    async prune(caller, filters) {
      acceptFilters(filters, ['label', 'label!', 'until']);
      const matches = labelFilters(filters);
      const until = untilFilter(filters, context.clock.now());
      const attached = await attachedNetworks(caller.account);
      const deleted: string[] = [];
      for (const network of await all(caller)) {
        if (network.predefined || attached.has(network.id) || !matches(network.labels) || (until !== undefined && Date.parse(network.createdAt) > until)) continue;
        try {
          await context.run(caller, 'network.remove', {networkId: network.id, account: caller.account});
          deleted.push(network.name);
        } catch (err) {
          if (!isCetusError(err, 'conflict') && !isCetusError(err, 'forbidden') && !isCetusError(err, 'notFound')) throw err;
        }
      }
      context.events.emit(caller.account, pruned('network', 0));
      return {deleted};
    },
  };
}
