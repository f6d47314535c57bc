/**
 * container.evacuate: a container whose node is fenced is started elsewhere. The node's being fenced is checked by the etag of the very batch that assigns the container to another one,
 * so that a join comes before, and the node goes on with it, or after, and the node removes it.
 */
import {targets, type EvacuateParams} from '../../schema/chains';
import type {Chain} from '../../workflow/chain';
import {movedResult, placeAnew, provenStopped, runThere} from '../moving';
import type {JobServices} from '../services';

export const evacuate: Chain<EvacuateParams, JobServices> = {
  name: 'container.evacuate',
  version: 1,
  target: (params) => targets.container(params.containerId),
  steps: [placeAnew(provenStopped), ...runThere],
  result: movedResult,
};
