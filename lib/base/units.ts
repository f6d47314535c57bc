/** Sizes and amounts as Docker's users write them. Units last in every name: bytes, ns, ms, nanoCpus. */
export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

export const NANO_CPUS_PER_CPU = 1_000_000_000;

/** "12.3MB" in decimal units, as the docker CLI prints sizes. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${Number(value.toPrecision(4))}${units[unit]}`;
}
