/** The verbs on volumes. Volumes are local to the node on which they are first used. */
import {CetusError, isCetusError} from '../base/errors';
import {eq} from '../moray/filter';
import {BUCKETS} from '../schema/buckets';
import type {Volume} from '../schema/objects';
import {pruned} from './events';
import type {Context} from './context';
import {volumeDraft} from './create/create';
import {checkVolumeDriver, checkVolumeName, gateVolumeOptions} from './create/mounts';
import {acceptFilters, booleanFilter, has, labelFilters, labelsMatch, nameMatcher, valuesOf} from './filters';
import {volumeSize} from './sizes';
import type {Caller, PlacedVolume, VolumeVerbs} from './verbs';

const BUCKET = BUCKETS.volumes.name;

export function volumeVerbs(context: Context): VolumeVerbs {
  const find = async (caller: Caller, name: string): Promise<Volume> => {
    const [stored] = await context.moray.list<Volume>(BUCKET, eq('accountName', `${caller.account}/${name}`), {limit: 1});
    if (!stored) throw new CetusError('notFound', `get ${name}: no such volume`);
    return stored.value;
  };
  /** Every container counts, running or not. */
  const users = async (account: string): Promise<Map<string, string[]>> => {
    const byVolume = new Map<string, string[]>();
    for (const c of await context.views.list(account)) for (const id of c.volumeIds) byVolume.set(id, [...(byVolume.get(id) ?? []), c.id]);
    return byVolume;
  };
  const inUse = (volume: Volume, containers: string[]): CetusError => new CetusError('conflict', `remove ${volume.name}: volume is in use - [${containers.join(', ')}]`);

  const placed = async (volumes: Volume[]): Promise<PlacedVolume[]> => {
    const nodes = await context.fleet.nodes();
    if (nodes.length < 2) return volumes;
    const names = new Map(nodes.map((node) => [node.id, node.name]));
    return volumes.map((volume) => ({...volume, ...(names.has(volume.nodeId) ? {node: names.get(volume.nodeId)} : {})}));
  };

  return {
    async create(caller, body) {
      const name = body.Name || context.ids.hex64();
      const options = body.DriverOpts ?? {};
      if (body.Name) checkVolumeName(body.Name);
      checkVolumeDriver(name, body.Driver, options);
      const within = gateVolumeOptions(options, context.config);
      const made = await context.run(caller, 'volume.create', {volume: volumeDraft(context, caller.account, name, {labels: body.Labels ?? {}, options, anonymous: !body.Name, ...within})});
      return (await placed([made]))[0]!;
    },

    async list(caller, filters) {
      acceptFilters(filters, ['dangling', 'driver', 'label', 'name']);
      const dangling = booleanFilter(filters, 'dangling');
      const used = dangling === undefined ? undefined : await users(caller.account);
      const named = nameMatcher(filters, 'name');
      const volumes: Volume[] = [];
      for await (const {value} of context.moray.find<Volume>(BUCKET, eq('account', caller.account), {sort: [{field: 'name', order: 'asc'}]})) {
        if (!named(value.name) || !labelsMatch(valuesOf(filters, 'label'), value.labels)) continue;
        if (has(filters, 'driver') && !valuesOf(filters, 'driver').includes(value.driver)) continue;
        if (used && used.has(value.id) === dangling) continue;
        volumes.push(value);
      }
      return {volumes: await placed(volumes), warnings: []};
    },

    get: async (caller, name) => (await placed([await find(caller, name)]))[0]!,

    async remove(caller, name, force) {
      let volume: Volume;
      try {
        volume = await find(caller, name);
      } catch (err) {
        // As the Engine: forced removal of what is not there is a success.
        if (force && isCetusError(err, 'notFound')) return;
        throw err;
      }
      const using = (await users(caller.account)).get(volume.id);
      if (using) throw inUse(volume, using);
      await context.run(caller, 'volume.remove', {volumeId: volume.id, force});
    },

    async prune(caller, filters) {
      acceptFilters(filters, ['all', 'label', 'label!']);
      const all = booleanFilter(filters, 'all') ?? false;
      const matches = labelFilters(filters);
      const used = await users(caller.account);
      const deleted: string[] = [];
      let spaceReclaimed = 0;
      for await (const {value} of context.moray.find<Volume>(BUCKET, eq('account', caller.account))) {
        if (used.has(value.id) || (!all && !value.anonymous) || !matches(value.labels)) continue;
        const bytes = Math.max(0, await volumeSize(context, value));
        try {
          await context.run(caller, 'volume.remove', {volumeId: value.id, force: false});
          deleted.push(value.name);
          spaceReclaimed += bytes;
        } catch (err) {
          if (!isCetusError(err, 'conflict') && !isCetusError(err, 'notFound')) throw err;
        }
      }
      context.events.emit(caller.account, pruned('volume', spaceReclaimed));
      return {deleted, spaceReclaimed};
    },
  };
}
