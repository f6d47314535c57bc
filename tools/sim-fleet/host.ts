/**
 * A process full of simulated nodes, driven over its IPC channel by fleet.ts. It ends with its parent.
 */
import {createLog, standardOutput} from '../../lib/base/log';
import {Certificates, type Signer} from './certificates';
import {nodeId, SimNode} from './node';

export interface HostTask { first: number; count: number; controlPlane: string; addressOf: {network: number; port: number}; signer: Signer; dataDir: string }
export type HostOrder =
  | {op: 'start'; task: HostTask}
  /** These go, and what runs on them. */
  | {op: 'powerOff'; first: number; count: number}
  | {op: 'running'};
/** `running`: container id to the numbers of the nodes on which it runs. `tables`: messages about where others are, so far. */
export type HostAnswer = {running?: Record<string, number[]>; tables?: number; error?: string};

/** Joins under way at a time. */
const JOINING = 32;

const log = createLog({name: 'sim-fleet', level: 'error', stream: standardOutput()});
const nodes = new Map<number, SimNode>();

/** 127.NETWORK.x.y */
export function addressOf(network: number, number: number): string {
  return `127.${network}.${number >> 8}.${number & 255}`;
}

async function start({first, count, controlPlane, addressOf: at, signer, dataDir}: HostTask): Promise<void> {
  const certificates = new Certificates(signer);
  let next = first;
  await Promise.all(Array.from({length: Math.min(JOINING, count)}, async () => {
    while (next < first + count) {
      const number = next;
      next += 1;
      const address = addressOf(at.network, number);
      const node = new SimNode({number, controlPlane, address, port: at.port, tls: certificates.of('node', nodeId(number), address), dataDir, log});
      nodes.set(number, node);
      await node.start();
      await node.joined;
    }
  }));
}

async function perform(order: HostOrder): Promise<HostAnswer> {
  switch (order.op) {
    case 'start':
      await start(order.task);
      return {};
    case 'powerOff': {
      const gone = [...nodes].filter(([number]) => number >= order.first && number < order.first + order.count);
      for (const [number] of gone) nodes.delete(number);
      await Promise.all(gone.map(([, node]) => node.stop()));
      return {};
    }
    case 'running': {
      const running: Record<string, number[]> = {};
      let tables = 0;
      for (const [number, node] of nodes) {
        tables += node.tablesHeard;
        for (const id of node.running()) (running[id] ??= []).push(number);
      }
      return {running, tables};
    }
  }
}

if (process.send && require.main === module) serve();

function serve(): void {
  const send = (answer: HostAnswer & {n: number}): void => void process.send!(answer);
  process.on('message', ({n, ...order}: HostOrder & {n: number}) => {
    perform(order).then((answer) => send({n, ...answer}), (err: unknown) => send({n, error: (err as Error).stack ?? String(err)}));
  });
  // Its files go with the directory that the parent made; nothing else outlives it.
  process.once('disconnect', () => process.exit(0));
  process.once('SIGTERM', () => process.exit(0));
  process.on('SIGINT', () => undefined);
}
