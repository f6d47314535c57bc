/**
 * Prints each engine's processes, resident (RSS) and proportional (PSS) MiB. Pages that processes share (the Node binary, Postgres' buffers) count
 * in full in each one's RSS; only PSS sums are what the machine gives. Shims and containers are not there: none runs by then.
 */
export function printMemory(when, {cetus, dockerd}) {
  console.log(`\nmemory in MiB ${when}: resident (shared pages counted in each process) / proportional (shared pages shared out)`);
  const sums = {};
  for (const engine of [cetus, dockerd]) {
    const byName = new Map();
    const sum = {resident: 0, proportional: 0};
    for (const p of engine.processes()) {
      const of = byName.get(p.name) ?? {resident: 0, proportional: 0, count: 0};
      byName.set(p.name, of);
      of.count += 1;
      for (const each of [of, sum]) {
        each.resident += p.residentKib / 1024;
        each.proportional += p.proportionalKib / 1024;
      }
    }
    sums[engine.name] = sum;
    const line = [...byName].map(([name, of]) => `${name}${of.count > 1 ? ` (${of.count} processes)` : ''} ${of.resident.toFixed(0)}/${of.proportional.toFixed(0)}`);
    console.log(`  ${engine.name}: ${line.join(', ')}; sum ${sum.resident.toFixed(0)}/${sum.proportional.toFixed(0)}`);
  }
  const ratio = (measured) => (sums.cetus[measured] / sums.dockerd[measured]).toFixed(2);
  console.log(`  ratio: ${ratio('resident')} resident, ${ratio('proportional')} proportional (<= 1)`);
}
