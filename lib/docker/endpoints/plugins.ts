/**
 * Plugins: a datacenter has none and takes none. Questions are answered as an Engine answers that has none (`docker inspect NAME` asks here
 * last of all); installing one is refused by its name.
 */
import {CetusError} from '../../base/errors';
import {familiarReference, parseReference} from '../../schema/reference';
import type {Exchange, Handler, Handlers} from '../exchange';

const FILTERS: readonly string[] = ['enabled', 'capability'];
const BOOLEANS: readonly string[] = ['true', 'false', '1', '0'];

const wrong = (message: string): CetusError => new CetusError('invalid', message);

async function list(x: Exchange): Promise<void> {
  const filters = x.query.filters();
  for (const name of Object.keys(filters)) if (!FILTERS.includes(name)) throw wrong(`invalid filter '${name}'`);
  const enabled = filters.enabled ?? [];
  if (enabled.length > 0 && !(enabled.length === 1 && BOOLEANS.includes(enabled[0]!.toLowerCase()))) throw wrong(`invalid filter 'enabled=[${enabled.join(' ')}]'`);
  x.json(200, []);
}

/** As a person would write it, with its tag. */
function reference(text: string): string {
  const {tag, digest, ...parsed} = parseReference(text);
  return familiarReference({...parsed, ...(digest ? {digest} : {tag: tag ?? 'latest'})});
}

const refuse = (name: string): never => {
  throw new CetusError('unsupported', `plugin "${name}" cannot be installed: Cetus has no plugins; its volume, network and log drivers are listed by "docker info"`);
};

async function privileges(x: Exchange): Promise<void> {
  refuse(reference(x.query.text('remote')));
}

/** The privileges that the person has granted come first. */
async function granted(x: Exchange): Promise<void> {
  const given = await x.readJson();
  if (given === undefined) throw wrong('failed to parse privileges: EOF');
  if (given !== null && !Array.isArray(given)) throw wrong('failed to parse privileges: an array is expected');
}

async function pull(x: Exchange): Promise<void> {
  await granted(x);
  const remote = reference(x.query.text('remote'));
  const name = x.query.text('name');
  refuse(name ? reference(name) : remote);
}

async function upgrade(x: Exchange): Promise<void> {
  await granted(x);
  reference(x.query.text('remote'));
  notFound(reference(x.param('name')));
}

async function create(x: Exchange): Promise<void> {
  const name = x.query.text('name');
  try {
    refuse(reference(name));
  } catch (err) {
    const {kind, message} = err as CetusError;
    throw kind === 'invalid' ? wrong(`failed to parse reference ${name}: ${message}`) : err;
  }
}

const notFound = (name: string): never => { throw new CetusError('notFound', `plugin "${name}" not found`); };

function named(...readings: ((x: Exchange) => void | Promise<void>)[]): Handler {
  return async (x) => {
    for (const read of readings) await read(x);
    notFound(x.param('name'));
  };
}

function timeout(x: Exchange): void {
  const text = x.query.text('timeout');
  if (!/^[+-]?\d+$/.test(text)) throw wrong(`strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`);
}

async function settings(x: Exchange): Promise<void> {
  const given = await x.readJson();
  if (given !== undefined && given !== null && !(Array.isArray(given) && given.every((value) => typeof value === 'string'))) throw wrong('invalid JSON: a list of strings is expected');
}

export const pluginHandlers: Handlers = {
  PluginList: list,
  PluginInspect: named(),
  GetPluginPrivileges: privileges,
  PluginPull: pull,
  PluginDelete: named(),
  PluginEnable: named(timeout),
  PluginDisable: named(),
  PluginUpgrade: upgrade,
  PluginCreate: create,
  PluginPush: named(),
  PluginSet: named(settings),
};
