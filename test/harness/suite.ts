/**
 * The frame of an end-to-end test file: a datacenter of its own with busybox, up before its first test; and after its last one nothing may be
 * left of it on the machine. To be called at the top of a file, outside of tests.
 */
import {busyboxArchive} from './busybox';
import {NOTHING_LEFT, TestDatacenter} from './cetus';
import {until} from './wait';

const SETUP_TIMEOUT_MS = 240_000;

export interface SuiteOptions {
  /** Further arguments of `cetus up`. */
  args?: string[];
  verb?: 'up' | 'cluster' | 'fleet';
  /** What the tests need further, once busybox is loaded. */
  prepare?(dc: TestDatacenter): Promise<unknown>;
  /** What would stand in the way of the end: clients that still run, servers of the tests' own. */
  cleanUp?(dc: TestDatacenter): Promise<unknown>;
}

export function datacenterWithBusybox({args, verb, prepare, cleanUp}: SuiteOptions = {}): TestDatacenter {
  const dc = new TestDatacenter(args, verb);
  beforeAll(async () => {
    await dc.up();
    await dc.ok(['load', '-i', await busyboxArchive()]);
    await prepare?.(dc);
  }, SETUP_TIMEOUT_MS);
  afterAll(async () => {
    await cleanUp?.(dc);
    expect(await dc.destroy()).toEqual(NOTHING_LEFT);
  }, SETUP_TIMEOUT_MS);
  return dc;
}

/** In place of `test`, for what a fleet of test hosts (CETUS_FLEET) cannot have: there it is left out, for this reason. */
export function onlyOnOneMachine(_reason: string): jest.It {
  return process.env.CETUS_FLEET ? test.skip : test;
}

/** Each test finds no container, and no anonymous volume of one, that another has left. */
export function removeContainersAfterEach(dc: TestDatacenter): void {
  afterEach(async () => {
    // One that is about to remove itself may be gone before it is named.
    await until('no container to be left', async () => {
      const all = await dc.ok(['ps', '-aq']);
      if (all) await dc.docker(['rm', '-fv', ...all.split('\n')]);
      return !all;
    });
  });
}
