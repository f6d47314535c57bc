/** One line of `docker events`. Text, not an object: timeNano is larger than a JavaScript number can hold exactly. */
import type {DatacenterEvent} from '../../schema/objects';

export function eventLine(event: DatacenterEvent): string {
  // `status`, `id` and `from` are the shape of before 1.22; the docker CLI and older SDKs still read them.
  const {type, action: status, actorId: id, attributes: {image: from}} = event;
  const legacy = type === 'container' || type === 'image' ? {status, ...(id ? {id} : {}), ...(type === 'container' && from ? {from} : {})} : {};
  const head = JSON.stringify({
    ...legacy, Type: event.type, Action: event.action, Actor: {ID: event.actorId, Attributes: event.attributes}, scope: 'local',
    time: Number(BigInt(event.timeNs) / 1_000_000_000n),
  });
  return `${head.slice(0, -1)},"timeNano":${BigInt(event.timeNs)}}`;
}
