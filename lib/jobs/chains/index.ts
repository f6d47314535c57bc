/** Every chain of Cetus: what main registers with the workflow engine, and what the generic chain test drives. */
import type {ChainName} from '../../schema/chains';
import type {AnyChain} from '../../workflow/registry';
import {destroy} from './container-destroy';
import {evacuate} from './container-evacuate';
import {clear, forget} from './container-forget';
import {kill} from './container-kill';
import {move} from './container-move';
import {pause, unpause} from './container-pause';
import {provision} from './container-provision';
import {rename} from './container-rename';
import {restart} from './container-restart';
import {start} from './container-start';
import {stop} from './container-stop';
import {update} from './container-update';
import {collect} from './image-collect';
import {commit} from './image-commit';
import {importArchive} from './image-import';
import {load} from './image-load';
import {pull} from './image-pull';
import {remove as removeImage} from './image-remove';
import {replicate} from './image-replicate';
import {connect} from './network-connect';
import {take} from './image-take';
import {create as createNetwork} from './network-create';
import {disconnect} from './network-disconnect';
import {remove as removeNetwork} from './network-remove';
import {create as createVolume} from './volume-create';
import {remove as removeVolume} from './volume-remove';

/** The type proves that no name of lib/schema/chains.ts is without its chain. */
const BY_NAME: Record<ChainName, AnyChain> = {
  'container.provision': provision,
  'container.start': start,
  'container.stop': stop,
  'container.restart': restart,
  'container.kill': kill,
  'container.pause': pause,
  'container.unpause': unpause,
  'container.rename': rename,
  'container.update': update,
  'container.destroy': destroy,
  'container.forget': forget,
  'container.clear': clear,
  'container.evacuate': evacuate,
  'container.move': move,
  'image.pull': pull,
  'image.load': load,
  'image.import': importArchive,
  'image.commit': commit,
  'image.take': take,
  'image.remove': removeImage,
  'image.replicate': replicate,
  'image.collect': collect,
  'network.create': createNetwork,
  'network.remove': removeNetwork,
  'network.connect': connect,
  'network.disconnect': disconnect,
  'volume.create': createVolume,
  'volume.remove': removeVolume,
};

export const CHAINS: readonly AnyChain[] = Object.values(BY_NAME);
