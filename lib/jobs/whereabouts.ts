/** What a node that answers says of a container: it has it, or it has not; of one that does not answer nothing follows. */
import {isCetusError} from '../base/errors';
import type {ContainerObservation} from '../schema/container';
import type {Ctx} from './services';

export type Whereabouts = {kind: 'present'; observation: ContainerObservation} | {kind: 'absent'} | {kind: 'unknown'};

export async function observeOn(ctx: Ctx<unknown>, nodeId: string, containerId: string): Promise<Whereabouts> {
  try {
    const agent = await ctx.services.fleet.agent(nodeId);
    // The node's own word; that there is no such node is nobody's.
    return await agent.observe(containerId).then((observation): Whereabouts => ({kind: 'present', observation}), (err: unknown) => {
      if (!isCetusError(err, 'notFound')) throw err;
      return {kind: 'absent'};
    });
  } catch (err) {
    if (!isCetusError(err)) throw err;
    return {kind: 'unknown'};
  }
}
