/**
 * Paths as the Engine's router wants them (gorilla/mux: Go's path.Clean over what is left when escapes are undone): no empty part, no "." and no
 * "..". Any other is answered with where it leads, before anything is looked up. Pure.
 */
import {posix} from 'node:path';

/** Most requests, /_ping first of all, are told from the rest by this alone. */
const SUSPECT = /\/\/|\/\.|%2[ef]/i;
/** What Go escapes in a path and encodeURI does not. */
const BESIDES = /[?#!*'()]/g;

/** The address that a request's target should have had, with its query; undefined where it is that already, or where nothing can be made of it. */
export function cleanTarget(target: string): string | undefined {
  const mark = target.indexOf('?');
  const given = mark < 0 ? target : target.slice(0, mark);
  if (!given.startsWith('/') || !SUSPECT.test(given)) return undefined;
  let path: string;
  try {
    path = decodeURIComponent(given);
  } catch {
    return undefined;
  }
  // One slash at the end stays, and is not found then: so it is with the Engine.
  const clean = posix.normalize(path);
  if (clean === path) return undefined;
  return encodeURI(clean).replace(BESIDES, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`) + (mark < 0 ? '' : target.slice(mark));
}
