/** Plays one script to one engine, and keeps each answer in a form that two engines can share: ids, times and addresses replaced by what they are. */
import {extract} from 'tar-stream';
import {type Endpoint, type Received, send} from '../harness/requests';
import {until} from '../harness/wait';
import type {Bytes, Script, Step} from './step';

export interface Outcome {
  step: Step;
  /** A step whose variables an earlier step did not bring was not asked. */
  skipped?: true;
  status: number;
  headers: Record<string, string>;
  body: unknown;
  ms: number;
}

/** Headers that clients use. */
const HEADERS = ['content-type', 'docker-experimental', 'ostype', 'upgrade', 'x-docker-container-path-stat', 'www-authenticate', 'location'];
/** Those of which only the presence is compared. */
const PRESENT = ['api-version', 'server'];

export class Player {
  private readonly variables = new Map<string, string>();

  constructor(private readonly endpoint: Endpoint, given: Record<string, string> = {}) {
    for (const [name, value] of Object.entries(given)) this.variables.set(name, value);
  }

  async play(script: Script): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    for (const step of script.steps) outcomes.push(await this.one(step));
    return outcomes;
  }

  private async one(step: Step): Promise<Outcome> {
    const wants = JSON.stringify([step.path, step.body ?? '', step.headers ?? {}]);
    const unknown = [...wants.matchAll(/\$([a-zA-Z]\w*)/g)].some(([, name]) => !this.variables.has(name!));
    if (unknown) return {step, skipped: true, status: 0, headers: {}, body: undefined, ms: 0};
    const began = performance.now();
    if (step.clock) this.variables.set(step.clock, (Date.now() / 1000).toFixed(3));
    const received = await this.ask(step);
    const body = await read(step, received);
    for (const [name, path] of Object.entries(step.capture ?? {})) {
      const value = at(body, path);
      if (typeof value === 'string' && value) this.variables.set(name, value);
    }
    const headers = Object.fromEntries([
      ...HEADERS.flatMap((name) => (received.headers[name] === undefined ? [] : [[name, readHeader(name, String(received.headers[name]))]])),
      ...PRESENT.flatMap((name) => (received.headers[name] === undefined ? [] : [[name, 'present']])),
    ]) as Record<string, string>;
    return {step, status: received.status, headers: this.plain(headers) as Record<string, string>, body: this.plain(body), ms: performance.now() - began};
  }

  private async ask(step: Step): Promise<Received> {
    const fill = (text: string, escape = (v: string): string => v): string => text.replace(/\$([a-zA-Z]\w*)/g, (_, name: string) => escape(this.variables.get(name)!));
    const body = typeof step.body === 'function' ? await (step.body as Bytes)() : step.body;
    const sent = {
      method: step.method, path: `${step.version ?? '/v1.41'}${fill(step.path)}`,
      headers: {...(body === undefined || Buffer.isBuffer(body) ? {} : {'Content-Type': 'application/json'}), ...Object.fromEntries(Object.entries(step.headers ?? {}).map(([k, v]) => [k, fill(v)]))},
      ...(body === undefined ? {} : {body: Buffer.isBuffer(body) ? body : fill(typeof body === 'string' ? body : JSON.stringify(body))}),
      ...(step.stdin === undefined ? {} : {stdin: step.stdin}),
      ...(step.enough ? {enough: (text: string): boolean => step.enough!.test(text)} : {}),
    };
    // dockerd does one prune at a time, whatever of; another list's may be under way.
    if (/\/prune\b/.test(step.path)) return until(step.name, async () => {
      const answer = await send(this.endpoint, sent);
      return !(answer.status === 409 && answer.body.includes('a prune operation is already running')) && answer;
    });
    if (!step.until) return send(this.endpoint, sent);
    const [path, value] = step.until;
    return until(`${step.name} (${step.path})`, async () => {
      const received = await send(this.endpoint, sent);
      return JSON.stringify(at(JSON.parse(received.body.toString() || 'null'), path)) === JSON.stringify(value) && received;
    }, 20_000);
  }

  /** The same value from both engines: their own ids by the name under which they were captured, then whatever looks like one. */
  private plain(value: unknown): unknown {
    if (typeof value === 'string') return this.text(value);
    if (Array.isArray(value)) return inOrder(value.map((v) => this.plain(v)));
    if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, v]) => [this.text(key), this.plain(v)]));
    return value;
  }

  private text(text: string): string {
    let plain = text;
    for (const [name, value] of this.variables) {
      if (value.length < 8) continue;
      plain = plain.replaceAll(value, `<${name}>`);
      const short = value.replace(/^sha256:/, '').slice(0, 12);
      if (/^[0-9a-f]{12}$/.test(short)) plain = plain.replaceAll(short, `<${name}>`);
    }
    return plain
      .replace(/\b[0-9a-f]{64}\b/g, '<id>').replace(/\b[0-9a-f]{32,40}\b/g, '<id>').replace(/(?<![\w.])(?=[0-9a-f]*\d)[0-9a-f]{12}(?!\w)/g, '<id>')
      .replace(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)/g, (time) => (time.startsWith('0001') ? time : '<time>'))
      .replace(/\b(?:Less than a second|About a minute|\d+ (?:second|minute)s?)\b/g, '<a while>')
      .replace(/\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b/g, '<mac>');
  }
}

/** Lists of which the Engine promises no order. */
function inOrder(list: unknown[]): unknown[] {
  const key = (v: unknown): string | undefined => {
    const {Destination, Name, Names, Path} = (v ?? {}) as Record<'Destination' | 'Name' | 'Names' | 'Path', unknown>;
    const found = Destination ?? Name ?? Names ?? Path;
    return found === undefined ? undefined : JSON.stringify(found);
  };
  return list.length && list.every((v) => key(v) !== undefined) ? [...list].sort((a, b) => (key(a)! < key(b)! ? -1 : 1)) : list;
}

const readHeader = (name: string, value: string): string => (name === 'x-docker-container-path-stat' ? Buffer.from(value, 'base64').toString() : value);

export function at(value: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((v, key) => (v && typeof v === 'object' ? (v as Record<string, unknown>)[key] : undefined), value);
}

async function read(step: Step, {status, headers, body}: Received): Promise<unknown> {
  const type = headers['content-type'] ?? '';
  const how = status >= 400 || (!step.read && type.startsWith('application/json')) ? 'json' : step.read ?? (type === 'application/x-tar' ? 'tar' : 'text');
  switch (how) {
    case 'nothing': return undefined;
    case 'text': return body.toString();
    case 'json': return json(body.toString());
    case 'lines': return once(events(body.toString().split('\n').filter((l) => l.trim()).map(json).map(progress)));
    case 'frames': return frames(body);
    case 'tar': return entries(body);
  }
}

/** Where several documents follow each other, a list of them; text that is none stays text. */
function json(text: string): unknown {
  if (!text) return '';
  try {
    return JSON.parse(text) as unknown;
  } catch {
    const lines = text.trim().split('\n');
    if (lines.length < 2) return {'no JSON': text};
    return lines.map(json);
  }
}

/**
 * dockerd says some things twice, a millisecond apart (no end of a container); and what happens to a container is told by its node, what it lets go of by whoever hears of it
 * first: of one kind of things events come in their order.
 */
function events(lines: unknown[]): unknown[] {
  const what = (line: unknown): string => JSON.stringify([(line as {Action?: unknown})?.Action, (line as {Actor?: unknown})?.Actor]);
  const type = (line: unknown): string => String((line as {Type?: unknown})?.Type ?? '');
  return lines.filter((line, n) => n === 0 || type(line) === 'container' || what(line) !== what(lines[n - 1])).sort((a, b) => (type(a) < type(b) ? -1 : type(a) > type(b) ? 1 : 0));
}

const OVERTAKEN = /^(Downloading|Verifying Checksum|Extracting|Waiting|Preparing|Pushing)$/;

/** Layers are fetched beside each other, and what is said on the way may be overtaken by what follows: what is said of one comes in its order, said once. Without an id the order is everybody's. */
function once(lines: unknown[]): unknown[] {
  const ofLayer = (l: unknown): boolean => typeof (l as {id?: unknown}).id === 'string' && typeof (l as {status?: unknown}).status === 'string' && !('Type' in (l as object)) && !String((l as {status: string}).status).startsWith('Pulling from');
  const said = new Set(lines.filter((l) => ofLayer(l) && !OVERTAKEN.test((l as {status: string}).status)).map((l) => JSON.stringify(l)));
  return [...lines.filter((l) => !ofLayer(l)), ...[...said].sort().map((l) => JSON.parse(l) as unknown)];
}

/** How much has been done differs from run to run; that it was said does not. */
function progress(line: unknown): unknown {
  const {progress: _, progressDetail: __, ...rest} = line as Record<string, unknown>;
  return rest;
}

function frames(body: Buffer): unknown {
  const out: Record<string, string> = {};
  for (let at = 0; at < body.length;) {
    if (body.length - at < 8 || body[at]! > 3 || body.readUIntBE(at + 1, 3) !== 0) return {unframed: body.toString()};
    const [stream, length] = [['stdin', 'stdout', 'stderr', 'systemerr'][body[at]!]!, body.readUInt32BE(at + 4)];
    out[stream] = (out[stream] ?? '') + body.subarray(at + 8, at + 8 + length).toString();
    at += 8 + length;
  }
  return out;
}

function entries(body: Buffer): Promise<unknown> {
  return new Promise((resolve) => {
    const found: object[] = [];
    const reader = extract();
    reader.on('entry', ({name, type, mode, size, linkname, uid, gid}, content, next) => {
      found.push({Name: name, type, mode, size, linkname, uid, gid});
      content.on('end', next).resume();
    });
    reader.on('finish', () => resolve(found)).on('error', (err) => resolve({'no tar': err.message}));
    reader.end(body);
  });
}
