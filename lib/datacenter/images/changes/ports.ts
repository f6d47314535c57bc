/** EXPOSE's arguments: "80", "53/udp", "8000-8010/tcp"; what stands before a colon is a host's business and is left out, as by the Engine. Pure. */
import {invalid} from './words';

const PROTOCOLS = new Set(['tcp', 'udp', 'sctp']);
const MAX_PORT = 65_535;
/** As many as there are. */
const MAX_RANGE = MAX_PORT;

export function portsOf(spec: string): string[] {
  const [ports, protocol = 'tcp', ...more] = spec.split('/');
  const proto = protocol === '' ? 'tcp' : protocol.toLowerCase();
  const range = ports!.split(':').at(-1)!;
  if (range === '') throw invalid(`no port specified: ${spec}<empty>`);
  const [, first, last] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? [];
  if (first === undefined || Number(first) > MAX_PORT || Number(last ?? 0) > MAX_PORT || (last !== undefined && Number(last) < Number(first))) throw invalid(`invalid containerPort: ${range}`);
  if (more.length || !PROTOCOLS.has(proto)) throw invalid(`invalid proto: ${[protocol, ...more].join('/')}`);
  const count = Math.min(MAX_RANGE, Number(last ?? first) - Number(first)) + 1;
  return Array.from({length: count}, (_, i) => `${Number(first) + i}/${proto}`);
}
