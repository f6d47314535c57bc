/**
 * image.commit: the container's node makes an image of its files, then the account has it. Its lock is its own: who stops or removes the container
 * meanwhile is not held up, and a commit that then finds nothing fails.
 */
import {formatNs} from '../../base/clock';
import type {BatchOp} from '../../moray/moray';
import type {NodeImage} from '../../schema/agent';
import {targets, type CommitParams, type CommitResult} from '../../schema/chains';
import type {Container, ContainerObservation} from '../../schema/container';
import type {Image} from '../../schema/objects';
import {familiarReference, parseImageName} from '../../schema/reference';
import type {Chain} from '../../workflow/chain';
import {copyElsewhere, dropUnrecorded, recordImage} from '../image-fetch';
import type {Ctx, JobServices} from '../services';
import {container, containerPut, CONTAINERS, imagePut, IMAGES, observed, task} from '../steps';

const COMMIT_MS = 2 * 3600_000;

interface Begun { nodeId: string; parent: string; created: string }
interface Committed { image: NodeImage; copies?: string[]; observation?: ContainerObservation }

export const commit: Chain<CommitParams, JobServices> = {
  name: 'image.commit',
  version: 1,
  target: (params) => `${targets.container(params.containerId)}/commit`,
  steps: [
    {kind: 'plan', name: 'begin', plan: begin},
    {
      kind: 'act', name: 'commit', do: make, timeoutMs: COMMIT_MS,
      undo: async (ctx, output) => {
        const {nodeId} = ctx.outputs['begin'] as Begun;
        const {image, copies = []} = (output ?? {}) as Partial<Committed>;
        for (const id of [nodeId, ...copies]) await dropUnrecorded(ctx, 'commit', id, image ? [image.imageId] : []);
      },
    },
    {kind: 'plan', name: 'record', plan: record},
  ],
  result: (outputs): CommitResult => ({imageId: (outputs['commit'] as Committed).image.imageId}),
};

async function begin(ctx: Ctx<CommitParams>): Promise<{output: Begun}> {
  const {value} = await container(ctx, ctx.params.containerId);
  return {output: {nodeId: value.nodeId, parent: value.imageId, created: formatNs(ctx.services.clock.nowNs())}};
}

async function make(ctx: Ctx<CommitParams>): Promise<Committed> {
  const {nodeId, created} = ctx.outputs['begin'] as Begun;
  const {account, containerId, pause, author, comment, config, containerConfig} = ctx.params;
  const {image, observation} = await task(ctx, nodeId, 'commit', {kind: 'image.commit', containerId, account, created, pause, author, comment, config, containerConfig}, COMMIT_MS);
  const copies = (await copyElsewhere(ctx, 'commit', nodeId, [image!]))[image!.imageId];
  return {image: image!, ...(copies ? {copies} : {}), ...(observation ? {observation} : {})};
}

async function record(ctx: Ctx<CommitParams>): Promise<{writes: BatchOp[]}> {
  const {account, containerId, reference, comment} = ctx.params;
  const {nodeId, parent} = ctx.outputs['begin'] as Begun;
  const {image, copies, observation} = ctx.outputs['commit'] as Committed;
  // One that is being removed will not be there to be a parent.
  const above = await ctx.moray.peek<Image>(IMAGES, `${account}/${parent}`);
  const writes = await recordImage(ctx, {account, nodeId, alsoOn: copies, inside: true, image, references: reference ? [reference] : [], ...(above && !above.value.removing ? {parent} : {})});
  const name = reference ? familiarReference(parseImageName(reference)) : '';
  if (name) writes.push(imagePut(ctx, account, 'tag', image.config, image.imageId, name));
  const stored = await ctx.moray.peek<Container>(CONTAINERS, containerId);
  // It was paused meanwhile; who was answered finds it running again.
  if (stored) writes.push(...observed(ctx, stored, observation), containerPut(ctx, stored.value, 'commit', {comment, imageID: image.imageId, imageRef: name}));
  return {writes};
}
