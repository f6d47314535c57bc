/**
 * The power switches and cables of the test hosts, for tests and for who wants to see what happens: HTTP on the unix socket DIR/run/fleet.sock, open to root
 * alone. POST /nodes/N/WHAT and /endpoints/N/WHAT answer when it has been done.
 *
 *   nodes      power-off, power-on, pause, resume, mend; cut?direction=in|out|both&from=all|endpoints|nodes
 *   endpoints  kill (and none starts it again), start
 */
import fs from 'node:fs';
import http from 'node:http';
import {asCetusError, CetusError} from '../../base/errors';
import type {Part} from '../up/foreground';
import type {TestEndpoint} from './endpoints';
import type {TestHost} from './host';
import {type FleetLayout, ourAddress} from './layout';
import type {Direction, Underlay} from './underlay';

interface Parts { hosts: TestHost[]; endpoints: TestEndpoint[]; layout: FleetLayout; underlay: Underlay }
type Act = (query: URLSearchParams) => Promise<void> | void;

export async function listenForSwitches(socket: string, parts: Parts): Promise<Part> {
  // One at a time: each sees the world that the one before it made.
  let turn: Promise<unknown> = Promise.resolve();
  const server = http.createServer((req, res) => {
    req.resume();
    const done = turn.then(async () => {
      const url = new URL(req.url ?? '/', 'http://fleet');
      const [, kind = '', number = '', what = ''] = url.pathname.split('/');
      const act = actsOf(parts, kind, Number(number))?.[what];
      if (req.method !== 'POST' || !act) throw new CetusError('notFound', `no such switch: ${req.method} ${url.pathname}`);
      await act(url.searchParams);
    });
    turn = done.catch(() => undefined);
    done.then(() => res.writeHead(204).end(), (err: unknown) => res.writeHead(asCetusError(err).kind === 'notFound' ? 404 : 500).end(`${(err as Error).message}\n`));
  });
  fs.rmSync(socket, {force: true});
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(socket, resolve));
  fs.chmodSync(socket, 0o600);
  return {
    name: 'switches', pid: () => process.pid,
    stop: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
      await turn;
    },
  };
}

function actsOf({hosts, endpoints, layout, underlay}: Parts, kind: string, number: number): Record<string, Act> | undefined {
  if (kind === 'endpoints') {
    const endpoint = endpoints[number - 1];
    return endpoint && {kill: () => endpoint.kill(), start: () => endpoint.start()};
  }
  const host = hosts[number - 1];
  if (kind !== 'nodes' || !host) return undefined;
  return {
    'power-off': () => host.powerOff(), 'power-on': () => host.powerOn(),
    pause: () => host.pause(), resume: () => host.resume(),
    mend: () => underlay.mend(host.node),
    cut: (query) => {
      const direction = query.get('direction') ?? 'both';
      const from = query.get('from') ?? 'all';
      if (!['in', 'out', 'both'].includes(direction) || !['all', 'endpoints', 'nodes'].includes(from)) throw new CetusError('invalid', `cut: direction is in, out or both, from all, endpoints or nodes`);
      const others = layout.nodes.filter((node) => node !== host.node).map((node) => node.address);
      return underlay.cut(host.node, direction as Direction, from === 'all' ? undefined : from === 'endpoints' ? [ourAddress(layout)] : others);
    },
  };
}
