/** How jobs begin, and what keeps their records small: outputs and errors are bounded before they enter a record. Pure. */
import {formatNs, type Clock} from '../base/clock';
import {asCetusError, CetusError, type WireError} from '../base/errors';
import type {Ids} from '../base/ids';
import type {Job} from '../schema/job';
import type {Chain, RunRequest} from './chain';

// Far above what any chain needs (an image's config and layer list is the largest); a runaway output must not become a row.
export const MAX_PARAMS_BYTES = 1024 * 1024;
export const MAX_OUTPUT_BYTES = 512 * 1024;
const MAX_MESSAGE_CHARS = 4096;
const MAX_INFO_BYTES = 16 * 1024;

export function newJob(request: RunRequest, chain: Chain, clock: Clock, ids: Ids): Job {
  const ns = clock.nowNs();
  return {
    id: ids.uuid(),
    workflow: chain.name,
    version: chain.version,
    target: chain.target(request.params),
    account: request.account,
    params: bounded(request.params, MAX_PARAMS_BYTES, `the parameters of ${chain.name}`),
    execution: 'queued',
    steps: [],
    lease: null,
    revision: 0,
    cancelRequested: false,
    requestId: request.requestId,
    createdAt: formatNs(ns),
    createdAtNs: ns.toString(),
  };
}

/** A JSON copy, so that a step that keeps changing its object cannot change the record. */
export function bounded(value: unknown, maxBytes: number, what: string): unknown {
  if (value === undefined) return undefined;
  const json = JSON.stringify(value);
  if (json.length > maxBytes) throw new CetusError('internal', `${what}: ${json.length} bytes, more than the ${maxBytes} that a job keeps`);
  return JSON.parse(json);
}

export function wireError(err: unknown, doing: string): WireError {
  const wire = asCetusError(err, doing).toWire();
  const message = wire.message.length > MAX_MESSAGE_CHARS ? `${wire.message.slice(0, MAX_MESSAGE_CHARS)}...` : wire.message;
  const said = {kind: wire.kind, message, ...(wire.shown === undefined ? {} : {shown: wire.shown.slice(0, MAX_MESSAGE_CHARS)})};
  if (!wire.info) return said;
  let json: string | undefined;
  try {
    json = JSON.stringify(wire.info);
  } catch {
    // Not JSON (a cycle, a bigint): facts that cannot be stored are left out, the message stands.
  }
  return json !== undefined && json.length <= MAX_INFO_BYTES ? {...said, info: JSON.parse(json) as Record<string, unknown>} : said;
}
