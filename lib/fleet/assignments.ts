/**
 * Which of its containers a node may go on with, asked once in each of its lives. True for all of that life: a container goes to another node only while its former one is
 * fenced (which ends the life), or after the former one has removed it. So the node is read from the store first, then the containers.
 */
import type {Moray} from '../moray/moray';
import type {AssignmentAnswer, AssignmentQuestion} from '../schema/agent';
import {BUCKETS} from '../schema/buckets';
import type {Container} from '../schema/container';
import type {Node} from '../schema/node';
import {refusalOf} from './leases';

const PARALLEL = 16;

export async function assignments(moray: Moray, {nodeId, bootGeneration, containers}: AssignmentQuestion): Promise<AssignmentAnswer> {
  const refusal = refusalOf(await moray.peek<Node>(BUCKETS.nodes.name, nodeId), nodeId, bootGeneration);
  if (refusal) throw refusal;
  const answer: AssignmentAnswer = {own: [], moved: []};
  const queue = [...containers];
  await Promise.all(Array.from({length: Math.min(PARALLEL, queue.length)}, async () => {
    for (let id = queue.shift(); id !== undefined; id = queue.shift()) {
      const stored = await moray.peek<Container>(BUCKETS.containers.name, id);
      if (stored) (stored.value.nodeId === nodeId ? answer.own : answer.moved).push(id);
    }
  }));
  return answer;
}
