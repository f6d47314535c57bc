import {createMoray} from '../../lib/moray/postgres';
import {usePostgres} from '../harness/postgres';
import {conformance} from '../moray/conformance';

const postgres = usePostgres();

describe('moray on Postgres', () => conformance(async () => createMoray({url: await postgres.freshDatabase()})));
