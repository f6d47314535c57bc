/**
 * `--link`: which containers a new one is linked to, and under which alias. The texts are the Engine's. A link counts on the default bridge, where it
 * makes an entry in /etc/hosts and variables (agent); on networks that know names it is an alias there (EndpointSettings.Links).
 */
import {CetusError, isCetusError} from '../../base/errors';
import type {Container, ContainerLink} from '../../schema/container';
import {resolveContainer} from '../containers/resolve';
import type {Context} from '../context';
import type {Caller} from '../verbs';

const invalid = (message: string): CetusError => new CetusError('invalid', message);

/** "name", "name:alias", or as inspect shows it: "/name:/web/alias". */
export function parseLink(text: string): {name: string; alias: string} {
  if (text === '') throw invalid('empty string specified for links');
  const [name = '', alias, ...more] = text.split(':');
  if (more.length > 0) throw invalid(`bad format for links: ${text}`);
  if (alias === undefined) return {name, alias: name};
  return name.startsWith('/') ? {name: name.slice(1), alias: alias.slice(alias.lastIndexOf('/') + 1)} : {name, alias};
}

export async function settleLinks(context: Context, caller: Caller, links: readonly string[], networkMode: string): Promise<{links: ContainerLink[]; linked: Container[]}> {
  const kind = networkMode.startsWith('container:') ? 'container' : networkMode === 'host' ? 'host' : undefined;
  if (links.length > 0 && kind) throw invalid(`conflicting options: ${kind} type network${kind === 'host' ? 'ing' : ''} can't be used with links. This would result in undefined behavior`);
  const linked: Container[] = [];
  const settled: ContainerLink[] = [];
  for (const text of links) {
    const {name, alias} = parseLink(text);
    const child = await resolveContainer(context, caller.account, name).catch((err: unknown) => {
      throw isCetusError(err, 'notFound') ? invalid(`could not get container for ${name}: ${err.message}`) : err;
    });
    if (child.spec.networkMode === 'host') throw invalid('conflicting options: host type networking can\'t be used with links. This would result in undefined behavior');
    linked.push(child);
    settled.push({containerId: child.id, name: child.name, alias});
  }
  return {links: settled, linked};
}
