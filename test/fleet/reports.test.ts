import {createMemoryMoray} from '../../lib/moray/memory';
import {reportsSuite} from './reports-suite';

describe('reports, over the store in memory', () => reportsSuite(async () => createMemoryMoray()));
