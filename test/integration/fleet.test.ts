import {createMoray} from '../../lib/moray/postgres';
import {reportsSuite} from '../fleet/reports-suite';
import {usePostgres} from '../harness/postgres';

const postgres = usePostgres();

describe('reports, over Postgres', () => reportsSuite(async () => createMoray({url: await postgres.freshDatabase()})));
