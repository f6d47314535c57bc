import {waitsFromTheStart} from '../../lib/manatee/postgres/acknowledge';

test('releases before May 2025, and versions that nobody knows, are put to the test', () => {
  expect([140_017, 150_012, 160_008, 170_004, 130_021].map(waitsFromTheStart)).toEqual([false, false, false, false, false]);
  expect([140_018, 150_013, 150_018, 160_009, 170_005, 180_000, 190_001].map(waitsFromTheStart)).toEqual([true, true, true, true, true, true, true]);
});
