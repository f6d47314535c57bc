import {createMoray} from '../../lib/moray/postgres';
import {authoritySuite} from '../fleet/authority-suite';
import {usePostgres} from '../harness/postgres';

const postgres = usePostgres();

describe('certificates of a fleet, over Postgres', () => authoritySuite(async () => createMoray({url: await postgres.freshDatabase()})));
