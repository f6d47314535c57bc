/** Two answers to one request, compared: status, message, headers that clients use, and the body field by field. Pure. */
import type {Outcome} from './run';

export interface Difference { noun: string; step: string; /** "status", "message", "header.x", "body.State.Pid". */ at: string; docker: unknown; cetus: unknown }

const ABSENT = '(absent)';

/** Values that two runs of one engine do not share: only their type is compared. */
const OF_THE_MOMENT = /^body\.(pre)?(cpu|memory)_stats\.|^body\.networks\.|SandboxID$|(^|\.)Mountpoint$|\.Mounts\.\d+\.Source$|(^|\.)(Pid|Created|CreatedAt|StartedAt|FinishedAt|Start|End|time|timeNano|SpaceReclaimed|LastTagTime|SystemTime|mtime)$|\.(MacAddress|IPAddress|Gateway|IPPrefixLen|IPv4Address)$/;

export function compare(noun: string, docker: Outcome, cetus: Outcome): Difference[] {
  const {step} = docker;
  const found: Difference[] = [];
  const differs = (at: string, d: unknown, c: unknown): void => void found.push({noun, step: step.name, at, docker: d, cetus: c});
  if (docker.skipped || cetus.skipped) {
    if (docker.skipped !== cetus.skipped) differs('asked', !docker.skipped, !cetus.skipped);
    return found;
  }
  if (docker.status !== cetus.status) differs('status', docker.status, cetus.status);
  for (const name of [...new Set([...Object.keys(docker.headers), ...Object.keys(cetus.headers)])]) {
    const [d, c] = [docker.headers[name] ?? ABSENT, cetus.headers[name] ?? ABSENT];
    // An error and an answer differ in their type by themselves.
    if (d !== c && !(name === 'content-type' && (docker.status >= 400) !== (cetus.status >= 400))) differs(`header.${name}`, d, c);
  }
  const message = (o: Outcome): unknown => {
    const said = o.body as {message?: string; 'no JSON'?: string} | null;
    return o.status >= 400 ? said?.message ?? said?.['no JSON']?.trim() : undefined;
  };
  if (docker.status >= 400 && cetus.status >= 400) {
    if (message(docker) !== message(cetus)) differs('message', message(docker), message(cetus));
  } else if (docker.status >= 400 || cetus.status >= 400) {
    differs('message', message(docker) ?? '(none)', message(cetus) ?? '(none)');
  } else {
    walk('body', docker.body, cetus.body, differs);
  }
  return step.besides ? found.filter((d) => d.at === 'status' || !step.besides!.test(d.at)) : found;
}

const kind = (v: unknown): string => (v === null ? 'null' : Array.isArray(v) ? 'array' : typeof v);

function walk(at: string, docker: unknown, cetus: unknown, differs: (at: string, d: unknown, c: unknown) => void): void {
  if (kind(docker) !== kind(cetus)) return differs(at, docker, cetus);
  if (Array.isArray(docker)) {
    const other = cetus as unknown[];
    if (docker.length !== other.length) return differs(at, docker, other);
    docker.forEach((d, i) => walk(`${at}.${i}`, d, other[i], differs));
    return;
  }
  if (docker && typeof docker === 'object') {
    const [d, c] = [docker as Record<string, unknown>, cetus as Record<string, unknown>];
    for (const key of new Set([...Object.keys(d), ...Object.keys(c)])) {
      if (key in d && key in c) walk(`${at}.${key}`, d[key], c[key], differs);
      else differs(`${at}.${key}`, key in d ? d[key] : ABSENT, key in c ? c[key] : ABSENT);
    }
    return;
  }
  if (docker !== cetus && !OF_THE_MOMENT.test(at)) differs(at, docker, cetus);
}
