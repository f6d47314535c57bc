/**
 * What a killed `cetus up` leaves: an endpoint, an agent and sitters that are just ending because their parent is gone. Two of either on one directory
 * would write the same ledgers and take each other's sockets away, so the next `cetus up` waits for them, and ends them where it takes long.
 * The caller holds the directory's lock (a cluster's sitters have one of their own): whoever bears these command lines is nobody's child any more.
 */
import path from 'node:path';
import {CetusError} from '../../base/errors';
import type {Log} from '../../base/log';
import {processesWith, signalAll, untilGone} from './processes';

const GRACE_MS = 1_500;
/** A sitter ends its Postgres first. */
const SITTER_GRACE_MS = 25_000;
const KILL_WAIT_MS = 5_000;

/** `cetus endpoint|agent|sitter --config DIR/run/...`, where there are several with a number; whoever else names these files looks into them. */
export function isFormer(words: readonly string[], dir: string): boolean {
  const verb = words.findIndex((word) => word === 'endpoint' || word === 'agent' || word === 'sitter');
  if (verb <= 0 || !/(^|\/)cetus(\.js)?$/.test(words[verb - 1]!) || words[verb + 1] !== '--config') return false;
  const file = words[verb + 2] ?? '';
  const numbered = path.basename(file).startsWith(`${words[verb]!}-`) && file.endsWith('.json');
  return path.dirname(file) === path.join(dir, 'run') && (numbered || (words[verb] !== 'sitter' && path.basename(file) === `${words[verb]!}.json`));
}

/** `verbs`: of whose lock the caller is the holder. */
export async function endFormer(dir: string, log: Log, verbs: string[]): Promise<void> {
  const former = (): number[] => processesWith((words) => isFormer(words, dir) && words.some((word) => verbs.includes(word)));
  if (former().length === 0) return;
  log.warn({pids: former()}, 'processes of a cetus up that was killed are still ending; waiting for them');
  signalAll(former(), 'SIGTERM');
  if (await untilGone(former, verbs.includes('sitter') ? SITTER_GRACE_MS : GRACE_MS)) return;
  // They may die at any moment without harm: that is what they are made for.
  signalAll(former(), 'SIGKILL');
  if (!(await untilGone(former, KILL_WAIT_MS))) throw new CetusError('conflict', `processes of an earlier cetus up do not end: ${former().join(', ')}`);
}
