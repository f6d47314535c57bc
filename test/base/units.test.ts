import {formatBytes, formatMemory} from '../../lib/base/units';

test('sizes in decimal, memory in binary units, as the docker CLI prints either', () => {
  expect([0, 999, 1000, 12_345_678, 2.5e15].map(formatBytes)).toEqual(['0B', '999B', '1kB', '12.35MB', '2.5PB']);
  expect([0, 1023, 1024, 64 * 1024 ** 2, 25_276_510_208, 2 ** 40].map(formatMemory)).toEqual(['0B', '1023B', '1KiB', '64MiB', '23.54GiB', '1TiB']);
});
