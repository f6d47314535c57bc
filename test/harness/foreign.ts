/** A program that is none of Cetus' and has a port: on the machine, and in each node's namespace, whichever node a container comes to. */
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import net from 'node:net';
import type {FleetNode} from './leaks';

export interface Foreign { close(): Promise<void> }

export async function listenElsewhere(port: number, nodes: FleetNode[] | undefined): Promise<Foreign> {
  const closers = nodes ? await Promise.all(nodes.map(({namespace}) => inside(namespace, port))) : [await here(port)];
  return {close: async () => void await Promise.all(closers.map((close) => close()))};
}

async function here(port: number): Promise<() => Promise<unknown>> {
  const server = net.createServer().listen(port, '0.0.0.0');
  await once(server, 'listening');
  return () => new Promise((resolve) => server.close(resolve));
}

async function inside(namespace: string, port: number): Promise<() => Promise<unknown>> {
  const program = `require('node:net').createServer().listen(${port}, '0.0.0.0', () => console.log('listening'))`;
  const child = spawn('nsenter', [`--net=/run/netns/${namespace}`, process.execPath, '-e', program], {stdio: ['ignore', 'pipe', 'inherit']});
  const ended = once(child, 'exit');
  await Promise.race([once(child.stdout, 'data'), ended.then(([status]) => { throw new Error(`port ${port} in ${namespace}: ${status}`); })]);
  return () => {
    child.kill('SIGKILL');
    return ended;
  };
}
