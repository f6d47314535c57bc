/** Whether a container's node is to be told that it may go elsewhere. Not where there is no network between node and control plane that could part them. */
import {isLocal} from '../fleet/registry';
import type {Container} from '../schema/container';
import {pinnedBy} from '../fleet/movable';
import type {Ctx} from './services';

export async function mayLeave(ctx: Ctx<unknown>, c: Container): Promise<boolean> {
  return pinnedBy(c) === undefined && !isLocal(await ctx.services.fleet.node(c.nodeId));
}
