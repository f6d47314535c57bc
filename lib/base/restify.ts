/**
 * restify without what we do not use of it: while loading it pulls in spdy, which asks process.binding() for Node's HTTP parser. Up to Node 22
 * that prints DEP0111 at every start of every program; Node 24 has no such binding and restify would not load at all. Nothing of ours
 * speaks spdy, so it gets an empty parser for the duration of that one require. (restify 12 is rid of spdy, and wants Node 22.)
 * restify also replaces writeHead on Node's own ServerResponse, for every server of the process, by one that returns nothing: here it
 * returns the response again, as Node documents it. Every room that serves HTTP takes restify from here.
 */
import {ServerResponse} from 'node:http';
import type * as Restify from 'restify';

function withEmptyParser<T>(load: () => T): T {
  const owner = process as unknown as {binding(name: string): unknown};
  const {binding} = owner;
  owner.binding = (name) => (name === 'http_parser' ? {HTTPParser: {methods: []}} : binding.call(process, name));
  try {
    return load();
  } finally {
    owner.binding = binding;
  }
}

// A literal require: import statements are hoisted above the switch.
// eslint-disable-next-line @typescript-eslint/no-require-imports
export const restify = withEmptyParser(() => require('restify') as typeof Restify);

const {writeHead} = ServerResponse.prototype;
ServerResponse.prototype.writeHead = function chained(this: ServerResponse, ...args: unknown[]) {
  (writeHead as (...args: unknown[]) => unknown).apply(this, args);
  return this;
} as typeof writeHead;

export type {Request, Response, Server, ServerOptions} from 'restify';
