/** Puts the verbs together. Constructed by lib/main; called by lib/docker, lib/admin and lib/ingress. */
import type {ContainerListener} from '../fleet/reports';
import type {Fleet} from '../fleet/fleet';
import {BUCKETS} from '../schema/buckets';
import {buildVerbs} from './builds/builds';
import {containerVerbs} from './containers/containers';
import {ContainerViews} from './containers/views';
import type {Context, Services} from './context';
import {EventLog, eventVerbs} from './events';
import {execVerbs, pruneExecs} from './execs';
import {imageVerbs} from './images/images';
import {networkVerbs} from './networks';
import {PredefinedNetworks} from './networks-predefined';
import {nodeVerbs} from './nodes';
import {operatorVerbs} from './operator';
import {publicationVerbs} from './publications';
import {systemVerbs} from './system';
import type {Datacenter} from './verbs';
import {volumeVerbs} from './volumes';

const HOUSEKEEPING_MS = 60_000;
const EVENT_RETENTION_MS = 24 * 3_600_000;
const EXEC_RETENTION_MS = 3_600_000;

export interface RunningDatacenter extends Datacenter {
  /** Opens the buckets and begins what runs behind the verbs: listening to reports, retention. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** `fleet.onContainerChange`, where there is one, wakes waiters before the change feed does. */
export type DatacenterServices = Services & {fleet: Fleet & {onContainerChange?(listener: ContainerListener): () => void}};

export function createDatacenter(services: DatacenterServices): RunningDatacenter {
  const log = services.log.child({component: 'datacenter'});
  const {moray, clock, ids} = services;
  const context: Context = {
    ...services, log,
    views: new ContainerViews(moray, clock, log, services.config.amongOthers ?? false),
    events: new EventLog(moray, clock, ids, log),
    run: (caller, workflow, params, more) => services.workflow.run({workflow, account: caller.account, params, requestId: caller.requestId, ...more}),
  };
  const predefined = new PredefinedNetworks(context);
  const containers = containerVerbs(context, predefined);
  const images = imageVerbs(context);
  let stopListening: (() => void) | undefined;
  let timer: NodeJS.Timeout | undefined;

  const housekeeping = async (): Promise<void> => {
    try {
      context.views.dropIdle();
      await context.events.prune(services.config.eventRetentionMs ?? EVENT_RETENTION_MS);
      await pruneExecs(context, EXEC_RETENTION_MS);
    } catch (err) {
      log.warn({err}, 'housekeeping; the next round tries again');
    }
  };

  return {
    containers, images,
    builds: buildVerbs(context, predefined),
    execs: execVerbs(context),
    networks: networkVerbs(context, predefined),
    volumes: volumeVerbs(context),
    events: eventVerbs(context.events),
    nodes: nodeVerbs(context),
    publications: publicationVerbs(context),
    system: systemVerbs(context, containers, images),
    operator: operatorVerbs(context),

    async start() {
      await moray.open(...Object.values(BUCKETS));
      stopListening = services.fleet.onContainerChange?.(({container}) => context.views.notice(container));
      timer = setInterval(() => void housekeeping(), HOUSEKEEPING_MS);
      timer.unref();
    },

    async stop() {
      clearInterval(timer);
      stopListening?.();
      context.views.close();
      await context.events.flush();
    },
  };
}
