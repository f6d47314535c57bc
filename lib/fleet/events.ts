/**
 * The Engine's events for what agents report, as stored objects. Keys are made from the report, so that a repeated report cannot make a
 * second event. Pure. Attributes as the Engine's: the container's labels, then image and name, then what the action adds.
 */
import {ZERO_TIME} from '../base/clock';
import type {BatchOp} from '../moray/moray';
import type {Report} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import type {DatacenterEvent} from '../schema/objects';

type ContainerReport = Extract<Report, {kind: 'container'}>;

/** RFC 3339 with nanoseconds, as agents write times, to nanoseconds since the epoch. */
export function nsOf(rfc3339: string): bigint {
  const [, seconds, fraction = ''] = /^(.{19})(?:\.(\d{1,9}))?Z$/.exec(rfc3339) ?? [];
  if (seconds === undefined) return 0n;
  return BigInt(Date.parse(`${seconds}Z`)) * 1_000_000n + BigInt(fraction.padEnd(9, '0') || '0');
}

/** `origin` is unique per report; the number keeps several events of one report apart and in order. */
export function putEvent(event: DatacenterEvent, origin: string): BatchOp {
  return {op: 'put', bucket: BUCKETS.events.name, key: `${event.timeNs.padStart(20, '0')}-${origin}`, value: event, etag: null};
}

export function containerEvent(container: Container, action: string, attributes: Record<string, string>, timeNs: bigint): DatacenterEvent {
  return {
    account: container.account, type: 'container', action, actorId: container.id, timeNs: timeNs.toString(),
    attributes: {...container.labels, image: container.imageReference, name: container.name, ...attributes},
  };
}

/** One `network disconnect` per attachment that an exit let go. Whoever empties the attachments writes these. */
export function disconnectEvents(container: Container, timeNs: bigint): DatacenterEvent[] {
  return container.attachments.map((attachment, i) => ({
    account: container.account, type: 'network', action: 'disconnect', actorId: attachment.networkId, timeNs: (timeNs + BigInt(i + 1)).toString(),
    attributes: {container: container.id, name: attachment.networkName, type: 'bridge'},
  }));
}

/** However many there were: who hears of the end first lets them go. */
const BEHIND_DISCONNECTS_NS = 1_000;

/** The Engine mounts a container's volumes before each start and lets them go after each end. */
export function volumeEvents(container: Container, report: ContainerReport): DatacenterEvent[] {
  if (report.action !== 'start' && report.action !== 'die') return [];
  const mounts = container.spec.mounts.flatMap((mount) => (mount.type === 'volume' ? [mount] : []));
  const starts = report.action === 'start';
  return mounts.map((mount, i) => ({
    account: container.account, type: 'volume', action: starts ? 'mount' : 'unmount', actorId: mount.name,
    timeNs: (nsOf(report.at) + BigInt(starts ? i - mounts.length : i + BEHIND_DISCONNECTS_NS)).toString(),
    attributes: {container: container.id, driver: 'local', ...(starts ? {destination: mount.destination, propagation: '', 'read/write': String(!mount.readOnly)} : {})},
  }));
}

export function reportedEvent(container: Container, report: ContainerReport): DatacenterEvent {
  const {observation} = report;
  const action = report.action === 'health_status' ? `health_status: ${observation.health?.status ?? 'none'}` : report.action;
  const attributes = {...report.attributes};
  if (report.action === 'die') {
    attributes['exitCode'] ??= String(observation.exitCode);
    attributes['execDuration'] ??= String(durationSeconds(observation.startedAt, observation.finishedAt));
  }
  return containerEvent(container, action, attributes, nsOf(report.at));
}

function durationSeconds(startedAt: string, finishedAt: string): number {
  if (startedAt === ZERO_TIME || finishedAt === ZERO_TIME) return 0;
  return Number((nsOf(finishedAt) - nsOf(startedAt)) / 1_000_000_000n);
}
