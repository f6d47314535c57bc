/**
 * The control plane's parts put together, for an endpoint and for a runner: store, fleet, placement, chains, verbs. Nothing is decided here.
 */
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type {Log} from '../base/log';
import {systemClock} from '../base/clock';
import {systemIds} from '../base/ids';
import {createDatacenter, type RunningDatacenter} from '../datacenter/index';
import type {Credentials, TlsMaterial} from '../base/credentials';
import type {FleetAuthority} from '../fleet/authority/authority';
import {createFleet, type RunningFleet} from '../fleet/create';
import {CHAINS} from '../jobs/chains/index';
import {createDriftKeeper} from '../jobs/drift-keeper';
import {createEvacuator} from '../jobs/evacuator';
import {createImageKeeper} from '../jobs/image-keeper';
import {createReconciler} from '../jobs/reconciler';
import {createJobServices} from '../jobs/services';
import {createMoray} from '../moray/postgres';
import type {Moray} from '../moray/moray';
import {createPlacementIndex} from '../placement/index';
import {BUCKETS} from '../schema/buckets';
import {DEFAULT_ACCOUNT, type Account} from '../schema/objects';
import {formatNs} from '../base/clock';
import {CetusError, isCetusError} from '../base/errors';
import type {InternalAddress} from '../base/listen';
import {createWorkflow} from '../workflow/workflow';
import {parseListen} from './address';
import type {AuthorityConfig, EndpointConfig} from './config';
import {feedPlacement} from './placement-feed';
import {storeOf} from './store';
import {readMutualTls} from './tls';
import {VERSION} from './version';

export interface ControlPlane {
  moray: Moray;
  fleet: RunningFleet;
  datacenter: RunningDatacenter;
  stop(): Promise<void>;
}

export async function startControlPlane(config: EndpointConfig, log: Log): Promise<ControlPlane> {
  const stopped = new AbortController();
  const store = await storeOf(config, log);
  const moray = createMoray({url: store.url, log});
  await moray.open(...Object.values(BUCKETS));
  await ensureDefaultAccount(moray);

  const authority = config.authority && await openAuthority(config, config.authority, moray, log);
  const tls = authority?.credentials ?? (config.fleetTls && readMutualTls(config.fleetTls));
  const fleet = createFleet({moray, log, listen: fleetListener(config.fleetListen, tls), ...(tls ? {agentTls: tls} : {}), ...(authority ? {authority, joinUrl: config.authority?.url} : {}), endpoint: endpointName(config),
    ...(config.leaseMs === undefined ? {} : {leaseMs: config.leaseMs})});
  const placement = createPlacementIndex();
  const services = createJobServices({fleet, placement, config: {subnetPools: config.addressPools}});
  const workflow = createWorkflow({
    moray, chains: CHAINS, services, log,
    // Nobody else can bear the name: the socket below it is ours alone, so our own unfinished jobs are taken up at once, not after their lease.
    runnerId: endpointName(config), resumeOwn: true,
  });
  const datacenter = createDatacenter({
    moray, fleet, workflow, log, clock: systemClock, ids: systemIds,
    config: {
      // Whose agents come over a socket of its own is alone.
      amongOthers: tls !== undefined,
      id: config.id, name: config.name, version: VERSION, allowHostNetwork: config.policy.allowHostNetwork, allowPrivileged: config.policy.allowPrivileged,
      ownSockets: config.listen.map(parseListen).flatMap((at) => (at.kind === 'unix' ? [path.resolve(at.path)] : [])),
      allowBinds: config.policy.allowBinds === 'all' || config.policy.allowBinds === 'off' ? config.policy.allowBinds : config.policy.allowBinds.split(','),
    },
  });
  const reconciler = createReconciler({moray, workflow, log});
  const evacuator = createEvacuator({moray, workflow, log, nodes: () => fleet.known(), acts: () => fleet.reviews()});
  const driftKeeper = createDriftKeeper({moray, fleet, log, nodes: () => fleet.known(), acts: () => fleet.reviews()});
  const imageKeeper = createImageKeeper({moray, fleet, workflow, log});
  fleet.onContainerChange(({container}) => reconciler.containerChanged(container));

  await feedPlacement(moray, placement, services.config, log, stopped.signal);
  await datacenter.start();
  await fleet.start();
  await workflow.start();
  await reconciler.start();
  imageKeeper.start();
  evacuator.start();
  driftKeeper.start();
  return {
    moray, fleet, datacenter,
    stop: async () => {
      stopped.abort(new Error('the process ends'));
      await driftKeeper.stop();
      await evacuator.stop();
      await imageKeeper.stop();
      await reconciler.stop();
      await workflow.stop();
      await datacenter.stop();
      await fleet.stop();
      await moray.close();
      await store.close();
    },
  };
}

/** Nobody else can bear it: the socket is ours alone. */
export function endpointName(config: EndpointConfig): string {
  return `${os.hostname()}:${config.fleetListen}`;
}

async function openAuthority(config: EndpointConfig, {keyFile, certificateDays}: AuthorityConfig, moray: Moray, log: Log): Promise<FleetAuthority> {
  const {FleetAuthority: Class} = await import('../fleet/authority/authority.js');
  const at = parseListen(config.fleetListen);
  return Class.open({
    moray, log, clock: systemClock, keyFile, endpointId: endpointName(config).replace(/[^A-Za-z0-9_.-]/g, '-').replace(/^[^A-Za-z0-9]+/, '').slice(-64),
    addresses: at.kind === 'tcp' && net.isIP(at.host) && !['0.0.0.0', '::'].includes(at.host) ? [at.host] : [],
    ...(certificateDays === undefined ? {} : {lifeMs: certificateDays * 24 * 3_600_000}),
  });
}

function fleetListener(address: string, tls: TlsMaterial | Credentials | undefined): InternalAddress {
  const at = parseListen(address);
  if (at.kind === 'unix') return {socketPath: at.path};
  if (!tls) throw new CetusError('invalid', `fleetListen ${address}: an address wants authority or fleetTls; without them unix:///PATH`);
  return {host: at.host, port: at.port, tls};
}

async function ensureDefaultAccount(moray: Moray): Promise<void> {
  const account: Account = {id: DEFAULT_ACCOUNT, name: DEFAULT_ACCOUNT, createdAt: formatNs(systemClock.nowNs())};
  try {
    await moray.put(BUCKETS.accounts.name, account.id, account, {etag: null});
  } catch (err) {
    // Another endpoint that starts in the same moment is told so by its key or by its name, whichever the store looks at first.
    if (!isCetusError(err, 'etagConflict') && !isCetusError(err, 'conflict')) throw err;
  }
}
