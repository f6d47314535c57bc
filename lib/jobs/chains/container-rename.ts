/** container.rename: the store decides who has a name; the node is told afterwards and told back where the rest fails. */
import {CetusError} from '../../base/errors';
import type {BatchOp} from '../../moray/moray';
import {targets, type RenameParams} from '../../schema/chains';
import {type Container, renamedIn} from '../../schema/container';
import type {AddressLease} from '../../schema/objects';
import type {Chain} from '../../workflow/chain';
import type {Ctx, JobServices} from '../services';
import {ADDRESSES, container, containerPut, holderOfName, putContainer, task, undoTask} from '../steps';

interface Renamed { nodeId: string; oldName: string }

export const rename: Chain<RenameParams, JobServices> = {
  name: 'container.rename',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [
    {kind: 'plan', name: 'rename', plan: take, undo: giveBack, onConflict: nameTaken},
    {
      kind: 'act', name: 'tell',
      do: (ctx) => task(ctx, renamed(ctx).nodeId, 'tell', {kind: 'container.rename', containerId: ctx.params.containerId, name: ctx.params.name}),
      undo: (ctx) => undoTask(ctx, renamed(ctx).nodeId, 'tell', {kind: 'container.rename', containerId: ctx.params.containerId, name: renamed(ctx).oldName}),
    },
    {kind: 'plan', name: 'told', plan: told},
  ],
  result: () => null,
};

function renamed(ctx: Ctx<RenameParams>): Renamed {
  return ctx.outputs['rename'] as Renamed;
}

function named(c: Container, name: string): Container {
  return {...c, name, accountName: `${c.account}/${name}`, spec: {...c.spec, name}, attachments: renamedIn(c.attachments, c.name, name)};
}

async function take(ctx: Ctx<RenameParams>): Promise<{output: Renamed; writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const {name, nodeId, status} = stored.value;
  if (name === ctx.params.name) throw new CetusError('invalid', 'Renaming a container with the same name as its current name');
  if (status === 'removing' || status === 'dead') throw new CetusError('conflict', `container ${stored.key} is marked for removal and cannot be renamed`);
  return {output: {nodeId, oldName: name}, writes: [putContainer(stored, named(stored.value, ctx.params.name)), ...await renamedLeases(ctx, stored.value, ctx.params.name)]};
}

async function giveBack(ctx: Ctx<RenameParams>, output: unknown): Promise<{writes: BatchOp[]}> {
  const stored = await container(ctx, ctx.params.containerId);
  const {oldName} = output as Renamed;
  return {writes: [putContainer(stored, named(stored.value, oldName)), ...await renamedLeases(ctx, stored.value, oldName)]};
}

/** From its leases other nodes know what it is called. An exit that lets go of them meanwhile changes the container too, and this plan with it. */
async function renamedLeases(ctx: Ctx<RenameParams>, c: Container, name: string): Promise<BatchOp[]> {
  const writes: BatchOp[] = [];
  for (const {networkId, address} of c.attachments) {
    const lease = await ctx.moray.peek<AddressLease>(ADDRESSES, `${networkId}/${address}`);
    if (lease?.value.containerId !== c.id || !lease.value.aliases?.includes(c.name)) continue;
    const value: AddressLease = {...lease.value, aliases: lease.value.aliases.map((alias) => (alias === c.name ? name : alias))};
    writes.push({op: 'put', bucket: ADDRESSES, key: lease.key, value, etag: lease.etag});
  }
  return writes;
}

async function nameTaken(ctx: Ctx<RenameParams>, error: CetusError): Promise<'replan' | CetusError> {
  const holder = await holderOfName(ctx, String(error.info['value']));
  if (!holder) return 'replan';
  return new CetusError('conflict', `Error when allocating new name: Conflict. The container name "/${ctx.params.name}" is already in use by container "${holder.id}". `
    + 'You have to remove (or rename) that container to be able to reuse that name.', {cause: error});
}

async function told(ctx: Ctx<RenameParams>): Promise<{writes: BatchOp[]}> {
  const {value} = await container(ctx, ctx.params.containerId);
  return {writes: [containerPut(ctx, value, 'rename', {oldName: `/${renamed(ctx).oldName}`})]};
}
