/**
 * What a container's question for a name is answered with, from the names that its networks know. Pure: bytes in, bytes out, or the decision that
 * somebody else has to answer. Behaviour is the Engine's: TTL 600, all addresses of a shared alias in changing order, an empty answer to AAAA
 * (the bridges carry IPv4), names by themselves or with their network's name behind, reverse look-ups in the container's own networks.
 */
import {AUTHORITATIVE_ANSWER, decode, encode, type Answer, type DecodedPacket, RECURSION_AVAILABLE, RECURSION_DESIRED, TRUNCATED_RESPONSE} from 'dns-packet';

/** The names on one network that a container is on: lower case, without a dot behind. */
export interface NetworkNames { network: string; addresses(name: string): string[]; nameOf(address: string): string | undefined }

export type Verdict =
  /** Nothing is said to what is no question. */
  | {kind: 'drop'}
  | {kind: 'answer'; bytes: Buffer}
  | {kind: 'forward'; query: DecodedPacket};

const TTL_SECONDS = 600;
const PLAIN_UDP_BYTES = 512;
const MAX_UDP_BYTES = 4096;
const RCODE = {formatError: 1, serverFailure: 2, notImplemented: 4, refused: 5} as const;

export function answerTo(message: Buffer, networks: NetworkNames[], udp: boolean, random: () => number): Verdict {
  const query = parse(message);
  if (!query || query.type !== 'query') return {kind: 'drop'};
  if ((query as {opcode?: string}).opcode !== 'QUERY') return {kind: 'answer', bytes: refusal(query, 'notImplemented')};
  const [question] = query.questions ?? [];
  if (!question || query.questions!.length !== 1) return {kind: 'answer', bytes: refusal(query, 'formatError')};
  const name = question.name.toLowerCase().replace(/\.$/, '');
  if (question.type === 'PTR') {
    const found = reverse(name, networks);
    return found === undefined ? {kind: 'forward', query} : {kind: 'answer', bytes: reply(query, [{type: 'PTR', name: question.name, ttl: TTL_SECONDS, data: found}], udp)};
  }
  const addresses = forward(name, networks);
  if (addresses.length === 0) return {kind: 'forward', query};
  const answers = ['A', 'ANY'].includes(question.type)
    ? shuffled(addresses, random).map((data): Answer => ({type: 'A', name: question.name, ttl: TTL_SECONDS, data})) : [];
  return {kind: 'answer', bytes: reply(query, answers, udp)};
}

/** An answer of ours to what nobody else answers. */
export function refusal(query: DecodedPacket, why: keyof typeof RCODE): Buffer {
  return encode({type: 'response', id: query.id, flags: flagsOf(query) | RCODE[why], questions: query.questions});
}

/** To who is no container of this network. */
export function turnAway(message: Buffer): Buffer | undefined {
  const query = parse(message);
  return query?.type === 'query' ? refusal(query, 'refused') : undefined;
}

/** Is this the answer to that question? Anybody can send us a datagram. */
export function answers(message: Buffer, query: DecodedPacket): boolean {
  const found = parse(message);
  const [asked] = query.questions!;
  const [told] = found?.questions ?? [];
  return found !== undefined && found.type === 'response' && found.id === query.id
    && (told === undefined || (told.type === asked!.type && told.name.toLowerCase() === asked!.name.toLowerCase()));
}

function parse(message: Buffer): DecodedPacket | undefined {
  try {
    return decode(message);
  } catch {
    return undefined;
  }
}

function forward(name: string, networks: NetworkNames[]): string[] {
  for (const {network, addresses} of networks) {
    const behind = `.${network.toLowerCase()}`;
    const found = [name, ...(name.endsWith(behind) ? [name.slice(0, -behind.length)] : [])].flatMap(addresses);
    // The first network that knows the name: those of another one are another's of the same name.
    if (found.length) return [...new Set(found)];
  }
  return [];
}

function reverse(name: string, networks: NetworkNames[]): string | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name)?.slice(1).reverse();
  if (!parts) return undefined;
  for (const {network, nameOf} of networks) {
    const found = nameOf(parts.join('.'));
    if (found) return `${found}.${network}`;
  }
  return undefined;
}

function reply(query: DecodedPacket, found: Answer[], udp: boolean): Buffer {
  const message = {type: 'response' as const, id: query.id, flags: flagsOf(query) | AUTHORITATIVE_ANSWER, questions: query.questions, answers: found};
  const whole = encode(message);
  const extended = (query.additionals ?? []).find((a) => a.type === 'OPT') as {udpPayloadSize?: number} | undefined;
  const most = Math.min(Math.max(extended?.udpPayloadSize ?? PLAIN_UDP_BYTES, PLAIN_UDP_BYTES), MAX_UDP_BYTES);
  // Who is told so asks again over TCP.
  return udp && whole.length > most ? encode({...message, flags: message.flags | TRUNCATED_RESPONSE, answers: []}) : whole;
}

function flagsOf(query: DecodedPacket): number {
  return RECURSION_AVAILABLE | ((query.flags ?? 0) & RECURSION_DESIRED);
}

function shuffled<T>(list: T[], random: () => number): T[] {
  return list.map((item) => [random(), item] as const).sort((a, b) => a[0] - b[0]).map(([, item]) => item);
}
