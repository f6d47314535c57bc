/**
 * Swarm mode, answered as an Engine answers that is in no swarm: what the request itself gets wrong first, then 503. A datacenter is not a
 * swarm and does not become one. Only the questions about nodes have an answer of ours: the fleet.
 */
import {CetusError} from '../../base/errors';
import type {Exchange, Handler, Handlers} from '../exchange';
import {nodeView} from '../views/node';

const NOT_A_MANAGER = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
const notAManager = (): never => { throw new CetusError('unavailable', NOT_A_MANAGER); };

/** What is read before the Engine looks whether it is a manager. */
type Reading = (x: Exchange) => void | Promise<void>;

const body: Reading = async (x) => {
  const given = await x.readJson();
  if (given !== undefined && given !== null && (typeof given !== 'object' || Array.isArray(given))) throw new CetusError('invalid', 'invalid JSON: an object is expected');
};
const filters: Reading = (x) => void x.query.filters();
const streams: Reading = (x) => {
  if (!x.query.bool('stdout') && !x.query.bool('stderr')) throw new CetusError('invalid', 'Bad parameters: you must choose at least one stream');
};

/** Every change names the version that it was made from. */
const version = (wrong: (text: string, why: string) => string): Reading => (x) => {
  const text = x.query.text('version');
  const why = !/^\d+$/.test(text) ? 'invalid syntax' : BigInt(text) > 0xffff_ffff_ffff_ffffn ? 'value out of range' : undefined;
  if (why) throw new CetusError('invalid', wrong(text, `strconv.ParseUint: parsing ${JSON.stringify(text)}: ${why}`));
};
const versionOf = (what: string): Reading => version((text, why) => `invalid ${what} version '${text}': ${why}`);

function managersOnly(...readings: Reading[]): Handler {
  return async (x) => {
    for (const read of readings) await read(x);
    notAManager();
  };
}

/** What would make a swarm of this. */
function neverASwarm(verb: string): Handler {
  return async (x) => {
    await body(x);
    throw new CetusError('unsupported', `a datacenter cannot ${verb} a swarm: it has nodes of its own ("docker node ls" shows them), and "docker run" places containers on them`);
  };
}

async function leave(): Promise<void> {
  throw new CetusError('unavailable', 'This node is not part of a swarm');
}

async function nodeList(x: Exchange): Promise<void> {
  x.json(200, (await x.datacenter.nodes.list(x.caller, x.query.filters())).map(nodeView));
}

async function nodeInspect(x: Exchange): Promise<void> {
  x.json(200, nodeView(await x.datacenter.nodes.get(x.caller, x.param('id'))));
}

/** Nodes come and go by the operator's hand, never by a Docker client's. */
function operatorsOnly(what: string, ...readings: Reading[]): Handler {
  return async (x) => {
    for (const read of readings) await read(x);
    const {name} = await x.datacenter.nodes.get(x.caller, x.param('id'));
    throw new CetusError('unsupported', `node ${name} cannot be ${what} through the Docker API: the nodes of a datacenter are its operator's`);
  };
}

async function volumeUpdate(): Promise<void> {
  throw new CetusError('unavailable', 'volume update only valid for cluster volumes, but swarm is unavailable');
}

export const swarmHandlers: Handlers = {
  NodeList: nodeList,
  NodeInspect: nodeInspect,
  NodeUpdate: operatorsOnly('changed', body, versionOf('node')),
  NodeDelete: operatorsOnly('removed'),
  SwarmInit: neverASwarm('become'),
  SwarmJoin: neverASwarm('join'),
  SwarmLeave: leave,
  SwarmInspect: managersOnly(),
  SwarmUpdate: managersOnly(body, versionOf('swarm')),
  SwarmUnlockkey: managersOnly(),
  SwarmUnlock: managersOnly(body),
  ServiceList: managersOnly(filters),
  ServiceCreate: managersOnly(body),
  ServiceInspect: managersOnly(),
  ServiceDelete: managersOnly(),
  ServiceUpdate: managersOnly(body, versionOf('service')),
  ServiceLogs: managersOnly(streams),
  TaskList: managersOnly(filters),
  TaskInspect: managersOnly(),
  TaskLogs: managersOnly(streams),
  SecretList: managersOnly(filters),
  SecretCreate: managersOnly(body),
  SecretInspect: managersOnly(),
  SecretDelete: managersOnly(),
  SecretUpdate: managersOnly(body, version(() => 'invalid secret version')),
  ConfigList: managersOnly(filters),
  ConfigCreate: managersOnly(body),
  ConfigInspect: managersOnly(),
  ConfigDelete: managersOnly(),
  ConfigUpdate: managersOnly(body, version(() => 'invalid config version')),
  VolumeUpdate: volumeUpdate,
};
