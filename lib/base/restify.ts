/**
 * restify, loaded without its noise: it pulls in spdy, which touches process.binding() while loading and makes Node print DEP0111 at
 * every start of every program. Nothing of ours uses spdy, so the warning is held back for the duration of that one require.
 * Every room that serves HTTP takes restify from here.
 */
import type * as Restify from 'restify';

function quietly<T>(load: () => T): T {
  const before = process.noDeprecation;
  process.noDeprecation = true;
  try {
    return load();
  } finally {
    process.noDeprecation = before;
  }
}

// A literal require: import statements are hoisted above the switch.
// eslint-disable-next-line @typescript-eslint/no-require-imports
export const restify = quietly(() => require('restify') as typeof Restify);
export type {Request, Response, Server, ServerOptions} from 'restify';
