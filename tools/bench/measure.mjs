// What every row is measured by: the two engines in turn, medians, and the ratio Cetus/dockerd beside its target.

const median = (xs) => [...xs].sort((a, b) => a - b)[Math.floor(xs.length / 2)];

/** `wanted` are the keys of the rows to run (undefined: all), `factor` multiplies the samples of each, `engines` are {name} objects, dockerd's and Cetus' own. */
export function measure({wanted, factor, engines: {cetus, dockerd}}) {
  const rows = [];
  return {
    rows,
    header: () => console.log(`${''.padEnd(44)} ${'cetus ms'.padStart(10)} ${'dockerd ms'.padStart(10)} ${'ratio'.padStart(7)}`),
    /** What only some rows need is prepared only for them. */
    isWanted: (key) => !wanted || wanted.includes(key),

    /** Runs `work(engine, n)` for the two in turn; work returns {ms}, the milliseconds that count, or its whole time is taken. `exact`: as often as told, whatever the factor. */
    async row(key, title, times, target, work, {warmup = 1, exact = false} = {}) {
      if (wanted && !wanted.includes(key)) return;
      if (!exact) times = Math.round(times * factor);
      const samples = {cetus: [], dockerd: []};
      for (let n = -warmup; n < times; n += 1)
        for (const engine of n % 2 ? [cetus, dockerd] : [dockerd, cetus]) {
          const from = process.hrtime.bigint();
          const counted = await work(engine, n);
          if (n >= 0) samples[engine.name].push(counted?.ms ?? Number(process.hrtime.bigint() - from) / 1e6);
        }
      const [ours, theirs] = [median(samples.cetus), median(samples.dockerd)];
      rows.push({title, ours, theirs, ratio: ours / theirs, target, times});
      console.log(`${title.padEnd(44)} ${ours.toFixed(1).padStart(10)} ${theirs.toFixed(1).padStart(10)} ${(ours / theirs).toFixed(2).padStart(7)}  ${ours / theirs <= target ? 'ok  ' : 'MISS'} (<= ${target}, n=${times})`);
    },

    /** Which rows miss their target, in a line. */
    verdict() {
      const missed = rows.filter((r) => r.ratio > r.target);
      return `${rows.length - missed.length} of ${rows.length} rows reach their target${missed.length ? `; missed: ${missed.map((r) => `${r.title} (${r.ratio.toFixed(2)})`).join(', ')}` : ''}`;
    },
  };
}

/** The milliseconds that `work` took alone, for rows whose preparation does not count. */
export async function timed(work) {
  const from = process.hrtime.bigint();
  await work();
  return {ms: Number(process.hrtime.bigint() - from) / 1e6};
}
