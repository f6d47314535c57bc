/** What a container's links mean at the moment of its start. They count where it is on the default bridge; refusals are the Engine's. */
import {CetusError} from '../base/errors';
import {SHORT_ID_LENGTH} from '../base/ids';
import type {Container, ResolvedLink} from '../schema/container';
import type {Ctx} from './services';
import {CONTAINERS} from './steps';

const DEFAULT_BRIDGE = 'bridge';

export async function resolveLinks(ctx: Ctx<unknown>, c: Container): Promise<ResolvedLink[]> {
  if (!c.links?.length || !c.networks[DEFAULT_BRIDGE]) return [];
  const found = await Promise.all(c.links.map(async ({containerId, alias}) => {
    const stored = await ctx.moray.peek<Container>(CONTAINERS, containerId);
    // Removed meanwhile: as in the Engine the link went with it.
    return stored ? [resolved(c, stored.value, alias)] : [];
  }));
  return found.flat();
}

function resolved(parent: Container, child: Container, alias: string): ResolvedLink {
  const refuse = (message: string): CetusError => new CetusError('conflict', message);
  if (!child.networks[DEFAULT_BRIDGE]) throw refuse(`Cannot link to /${child.name}, as it does not belong to the default network`);
  const place = child.attachments.find((a) => a.networkName === DEFAULT_BRIDGE);
  if (!place || (child.status !== 'running' && child.status !== 'paused')) throw refuse(`Cannot link to a non running container: /${child.name} AS /${parent.name}/${alias}`);
  if (child.nodeId !== parent.nodeId) throw refuse(`Cannot link to /${child.name}: it is on node ${child.node}, not on ${parent.node}`);
  const {config} = child.spec;
  return {
    alias, name: child.name, hostname: config.Hostname || child.id.slice(0, SHORT_ID_LENGTH), address: place.address, ports: Object.keys(config.ExposedPorts ?? {}), env: config.Env ?? [],
  };
}
