/** Sizes and amounts as Docker's users write them. Units last in every name: bytes, ns, ms, nanoCpus. */
export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

export const NANO_CPUS_PER_CPU = 1_000_000_000;

/** "23.54GiB" in binary units, as the docker CLI prints memory. */
export function formatMemory(bytes: number): string {
  return format(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);
}

/** "12.3MB" in decimal units, as the docker CLI prints sizes. */
export function formatBytes(bytes: number): string {
  return format(bytes, 1000, ['B', 'kB', 'MB', 'GB', 'TB', 'PB']);
}

function format(bytes: number, base: number, units: string[]): string {
  let value = bytes;
  let unit = 0;
  while (value >= base && unit < units.length - 1) {
    value /= base;
    unit += 1;
  }
  return `${Number(value.toPrecision(4))}${units[unit]}`;
}
