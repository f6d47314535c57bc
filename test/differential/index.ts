/** All scripts: the first ones, then several lists beside each other, the scripts of a list behind each other. */
import {ARCHIVE} from './archive';
import {CONTAINERS} from './containers';
import {CREATE} from './create';
import {DRIVERS} from './drivers';
import {EVENTS} from './events';
import {EXEC} from './exec';
import {IMAGES} from './images';
import {NETWORKS} from './networks';
import type {Script} from './step';
import {STREAMS} from './streams';
import {SYSTEM} from './system';
import {VOLUMES} from './volumes';

export interface Programme { first: Script[]; then: Script[][] }

export const PROGRAMME: Programme = {
  // What the whole engine has is asked while it has nothing, and what happens in it while nothing else does.
  first: [SYSTEM, EVENTS],
  then: [[CONTAINERS, EXEC, STREAMS], [CREATE], [IMAGES, NETWORKS, VOLUMES, ARCHIVE], [DRIVERS]],
};
export const SCRIPTS: readonly Script[] = [...PROGRAMME.first, ...PROGRAMME.then.flat()];
