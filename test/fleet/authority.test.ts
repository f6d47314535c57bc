import {createMemoryMoray} from '../../lib/moray/memory';
import {authoritySuite} from './authority-suite';

describe('certificates of a fleet, over the store in memory', () => authoritySuite(async () => createMemoryMoray()));
