/**
 * The words in which the scripts of this folder are written: one request a step, told to both engines. Scripts are data; test/differential/run.ts
 * plays them, compare.ts looks at the two answers.
 */
export interface Step {
  name: string;
  method: string;
  /** Without version; `$name` stands for what an earlier step captured. */
  path: string;
  /** An object is sent as JSON, text and bytes as they are; bytes that take their making are made when they are sent. */
  body?: unknown;
  headers?: Record<string, string>;
  /** What a client should not have asked. */
  mistake?: true;
  /** Variable -> path in the answer's JSON ("Id", "State.Status"). */
  capture?: Record<string, string>;
  /** The variable that gets the time at which this is asked, as `since` and `until` take it. */
  clock?: string;
  /** The version prefix; '' for none. */
  version?: string;
  /** Asked again until this JSON path has this value: not the request is tested then but its last answer. */
  until?: [path: string, value: unknown];
  /** Upgrade the connection, send this, and read to its end. */
  stdin?: string;
  /** Hang up once this stands in the answer: streams without an end. */
  enough?: RegExp;
  /** How the body is read where its Content-Type does not say it: frames of stdout and stderr, lines of JSON, the entries of a tar. */
  read?: 'json' | 'lines' | 'frames' | 'tar' | 'text' | 'nothing';
  /** JSON paths (as compare.ts prints them) that are not compared, for a reason that lies in this step. */
  besides?: RegExp;
}
export type More = Omit<Step, 'name' | 'method' | 'path' | 'body' | 'mistake'>;
export interface Script { noun: string; steps: Step[] }

export function step(name: string, request: string, body?: unknown, more: More = {}): Step {
  const [method, ...path] = request.split(' ');
  return {name, method: method!, path: path.join(' '), ...(body === undefined ? {} : {body}), ...more};
}
export const mistake = (name: string, request: string, body?: unknown, more: More = {}): Step => ({...step(name, request, body, more), mistake: true});

/** Variables keep their $. */
export const q = (value: unknown): string => encodeURIComponent(typeof value === 'string' ? value : JSON.stringify(value)).replaceAll('%24', '$');
export type Bytes = () => Promise<Buffer>;
export const bytes = (text: string | Buffer): Bytes => () => Promise.resolve(Buffer.from(text));
export const filters = (value: unknown): string => `filters=${q(value)}`;

/** A container that sleeps; SIGKILL as its stop signal, since a shell as process 1 ignores SIGTERM. */
export const sleeper = {Image: 'busybox', Cmd: ['sleep', '1000'], StopSignal: 'SIGKILL'};
export const finished = (name: string): Step => step(`${name} has ended`, `GET /containers/${name}/json`, undefined, {until: ['State.Running', false], besides: /./});
