/**
 * restify, loaded without its noise: it pulls in spdy, which touches process.binding() while loading and makes Node print DEP0111 at
 * every start of every program. Nothing of ours uses spdy, so the warning is held back for the duration of that one require.
 * restify also replaces writeHead on Node's own ServerResponse, for every server of the process, by one that returns nothing: here it
 * returns the response again, as Node documents it. Every room that serves HTTP takes restify from here.
 */
import {ServerResponse} from 'node:http';
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

const {writeHead} = ServerResponse.prototype;
ServerResponse.prototype.writeHead = function chained(this: ServerResponse, ...args: unknown[]) {
  (writeHead as (...args: unknown[]) => unknown).apply(this, args);
  return this;
} as typeof writeHead;

export type {Request, Response, Server, ServerOptions} from 'restify';
