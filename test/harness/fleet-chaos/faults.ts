/** What can happen to a fleet. Each fault strikes and is over when `run` resolves: everything has power, cables and a life again, if not yet its senses. */
import type {Node} from '../../../lib/schema/node';
import type {Cut, TestFleet} from '../fleet';
import {until} from '../wait';
import type {Load} from './load';
import type {Watcher} from './running';

export interface Scene {
  fleet: TestFleet;
  load: Load;
  watcher: Watcher;
  /** A number from 1 to `most`. */
  dice(most: number): number;
  /** Nodes whose processes have ended by it: what stayed there has ended too. */
  ended: Set<number>;
}
export interface Fault { name: string; run(scene: Scene): Promise<void> }

const FENCED_MS = 120_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** Strikes in the midst of work. */
const under = async ({load}: Scene, more: number): Promise<void> => {
  const before = load.tally.acked;
  await until('work to be done', () => load.tally.acked >= before + more, 90_000);
};

/** The operator's API of whichever endpoint answers. */
export async function livenessOf(fleet: TestFleet, number: number): Promise<Node['liveness'] | undefined> {
  const nodes = await fleet.admin<Node[]>('/v1/nodes').catch(() => []);
  return nodes.find(({name}) => name === fleet.node(number).name)?.liveness;
}
const fenced = (fleet: TestFleet, number: number): Promise<unknown> => until(`node ${number} to be fenced`, async () => (await livenessOf(fleet, number)) === 'fenced', FENCED_MS);

const killed = (part: 'agent' | 'containerd' | 'endpoint', most: (scene: Scene) => number): Fault => ({
  name: `${part} killed`,
  run: async (scene) => {
    await scene.fleet.kill(`${part}-${scene.dice(most(scene))}` as `agent-${number}`);
    await under(scene, 4);
  },
});
const nodes = ({fleet}: Scene): number => fleet.nodes.length;

const cutOff = (name: string, cut: Cut, long: boolean): Fault => ({
  name: `${name}, ${long ? 'until it is fenced' : 'for a moment'}`,
  run: async (scene) => {
    const {fleet} = scene;
    const number = scene.dice(nodes(scene));
    await fleet.cut(number, cut);
    try {
      if (long) await fenced(fleet, number);
      else await sleep(1_500);
      await under(scene, 4);
    } finally {
      await fleet.mend(number);
    }
  },
});

/** Somebody gives up what stayed on a node that is fenced: the records go at once, the node's part when it is back. */
async function forget({fleet, load}: Scene, number: number): Promise<void> {
  const all = await fleet.admin<{id: string; node: string}[]>('/v1/containers?limit=1000');
  const there = new Set(all.filter(({node}) => node === fleet.node(number).name).map(({id}) => id));
  const [given] = load.sure().filter(({id, kind}) => kind !== 'steady' && there.has(id));
  if (!given) return;
  // Its own client must not ask for something at the same time.
  given.doubtful = true;
  const answer = await load.call(1, 'DELETE', `/containers/${given.id}?force=1&v=1`);
  if (answer.status === 204) Object.assign(given, {state: 'absent', doubtful: false});
  else if (answer.status !== 404) load.wrong.push(`${given.name}, on a fenced node, could not be removed: ${answer.status} ${answer.body.toString().trim()}`);
}

export const FAULTS: readonly Fault[] = [
  killed('agent', nodes),
  killed('containerd', nodes),
  killed('endpoint', () => 2),
  {
    name: 'agent and containerd killed at once',
    run: async (scene) => {
      const number = scene.dice(nodes(scene));
      await Promise.all([scene.fleet.kill(`agent-${number}`), scene.fleet.kill(`containerd-${number}`)]);
      await under(scene, 4);
    },
  },
  {
    name: 'endpoint away for a while',
    run: async (scene) => {
      const number = scene.dice(2);
      await scene.fleet.killEndpoint(number);
      try {
        await under(scene, 4);
      } finally {
        await scene.fleet.startEndpoint(number);
      }
    },
  },
  {
    name: 'power lost, for a moment',
    run: async (scene) => {
      const number = scene.dice(nodes(scene));
      await scene.fleet.powerOff(number);
      scene.ended.add(number);
      await sleep(1_000);
      await scene.fleet.powerOn(number);
    },
  },
  {
    name: 'power lost, until the node is fenced',
    run: async (scene) => {
      const number = scene.dice(nodes(scene));
      await scene.fleet.powerOff(number);
      scene.ended.add(number);
      try {
        await fenced(scene.fleet, number);
        await forget(scene, number);
        await under(scene, 4);
      } finally {
        await scene.fleet.powerOn(number);
      }
    },
  },
  cutOff('cut off', {}, false),
  cutOff('cut off', {}, true),
  cutOff('deaf to endpoints', {direction: 'in', from: 'endpoints'}, true),
  cutOff('cut off from other nodes', {from: 'nodes'}, false),
  {
    name: 'frozen, for a moment',
    run: async (scene) => {
      const number = scene.dice(nodes(scene));
      await scene.fleet.pause(number);
      await sleep(2_000);
      scene.watcher.wakes(number);
      await scene.fleet.resume(number);
    },
  },
  {
    name: 'frozen, until it is fenced',
    run: async (scene) => {
      const number = scene.dice(nodes(scene));
      await scene.fleet.pause(number);
      try {
        await fenced(scene.fleet, number);
        await under(scene, 4);
      } finally {
        scene.watcher.wakes(number);
        await scene.fleet.resume(number);
      }
    },
  },
];
