/** /_ping, /version, /info, /events, /system/df. */
import {formatNs, systemClock} from '../../base/clock';
import {CetusError} from '../../base/errors';
import type {Exchange, Handlers} from '../exchange';
import {buildCacheView} from '../views/build-cache';
import {containerListEntry} from '../views/container-list';
import {eventLine} from '../views/event';
import {imageListEntry} from '../views/image';
import {infoView, versionView} from '../views/info';
import {volumeView} from '../views/network';

const PING_HEADERS = {
  Swarm: 'inactive', 'Cache-Control': 'no-cache, no-store, must-revalidate', Pragma: 'no-cache', 'Content-Type': 'text/plain; charset=utf-8',
};
/** As the Engine from 23 on: BuildKit where it is, which clients take it from here. */
const pingHeaders = (builds: boolean): Record<string, string> => ({'Builder-Version': builds ? '2' : '1', ...PING_HEADERS});
const PING_FRESH_MS = 1_000;

/** Clients ping before every command and health checks ping all day: the answer about the store is at most a second old. */
let lastPing: {datacenter: unknown; atMs: number; answer: Promise<{builds: boolean}>} | undefined;

function isUp(x: Exchange): Promise<{builds: boolean}> {
  const now = Date.now();
  if (!lastPing || lastPing.datacenter !== x.datacenter || now - lastPing.atMs > PING_FRESH_MS) {
    const answer = Promise.all([x.datacenter.builds.available().catch(() => false), x.datacenter.system.ping()]).then(([builds]) => ({builds}));
    answer.catch(() => undefined);
    lastPing = {datacenter: x.datacenter, atMs: now, answer};
  }
  return lastPing.answer;
}

async function ping(x: Exchange): Promise<void> {
  let headers = pingHeaders(true);
  try {
    headers = pingHeaders((await isUp(x)).builds);
  } catch (err) {
    // The headers go out all the same: a client negotiates its version with them even where the datacenter is not well.
    x.text(503, (err as Error).message, headers);
    return;
  }
  x.text(200, 'OK', headers);
}

async function version(x: Exchange): Promise<void> {
  x.json(200, versionView(x.config, (await x.datacenter.system.info(x.caller)).nodes));
}

async function info(x: Exchange): Promise<void> {
  x.json(200, infoView(x.config, await x.datacenter.system.info(x.caller), formatNs(systemClock.nowNs()), (minor) => x.speaks(minor)));
}

async function events(x: Exchange): Promise<void> {
  const sinceNs = x.query.timestampNs('since');
  const untilNs = x.query.timestampNs('until');
  if (sinceNs !== undefined && untilNs !== undefined && sinceNs > untilNs)
    throw new CetusError('invalid', '`since` time (' + x.query.text('since') + ') cannot be after `until` time (' + x.query.text('until') + ')');
  const stream = await x.datacenter.events.stream(x.caller, {sinceNs, untilNs, filters: x.query.filters()});
  const out = x.begin(200, {'Content-Type': 'application/json'});
  try {
    for await (const event of stream) {
      if (x.gone) return;
      await x.write(out, `${eventLine(event)}\n`);
    }
    out.end();
  } catch (err) {
    // A reader that fell behind is cut off, never given a gap.
    if (!x.gone) throw err;
  }
}

async function diskUsage(x: Exchange): Promise<void> {
  const types = new Set(x.speaks(42) ? x.query.all('type') : []);
  for (const type of types)
    if (!['container', 'image', 'volume', 'build-cache'].includes(type)) throw new CetusError('invalid', `unknown object type: ${type}`);
  const wanted = (type: string): boolean => types.size === 0 || types.has(type);
  const usage = await x.datacenter.system.diskUsage(x.caller);
  const now = Date.now();
  const options = {speaks: (minor: number) => x.speaks(minor), counted: true};
  x.json(200, {
    ...(wanted('image') ? {LayersSize: usage.layersSize, Images: usage.images.map((image) => imageListEntry(image, options))} : {}),
    ...(wanted('container') ? {Containers: usage.containers.map(({container, sizeRw}) => containerListEntry(container, now, {sizeRw, sizeRootFs: 0}))} : {}),
    ...(wanted('volume') ? {Volumes: usage.volumes.map(({volume, size, refCount}) => volumeView(volume, {size, refCount}))} : {}),
    ...(wanted('build-cache') ? buildCacheView(await x.datacenter.builds.usage(x.caller), options) : {}),
  });
}

export const systemHandlers: Handlers = {
  SystemPing: ping,
  SystemPingHead: ping,
  SystemVersion: version,
  SystemInfo: info,
  SystemEvents: events,
  SystemDataUsage: diskUsage,
};
