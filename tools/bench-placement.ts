/**
 * How long does one placement take among 10,000 nodes and 1,000,000 containers? By hand:
 *   npx tsc --outDir /tmp/bench-placement --module node16 --target es2022 --esModuleInterop --skipLibCheck tools/bench-placement.ts && node /tmp/bench-placement/tools/bench-placement.js
 */
import {createPlacementIndex} from '../lib/placement';

const NODES = 10_000;
const CONTAINERS = Number(process.argv[2] ?? 1_000_000);
const GiB = 1024 ** 3;
// A small seeded generator: two runs measure the same fleet.
let seed = 42;
const random = (below: number): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
};

const index = createPlacementIndex();
for (let i = 0; i < CONTAINERS; i += 1)
  index.putContainer({id: `c${i}`, name: `name${i}`, account: i % 2 ? 'default' : `a${random(1000)}`, nodeId: `n${random(NODES)}`, labels: i % 3 ? {} : {'cetus.spread': `s${random(5000)}`}, imageId: '', imageReference: '', ports: []});
for (let i = 0; i < NODES; i += 1) {
  index.putNode({id: `n${i}`, name: `node-${i}`, platform: 'linux/amd64', liveness: random(100) ? 'alive' : 'lost', availability: random(50) ? 'active' : 'cordoned', labels: {rack: `r${i % 200}`},
    cpus: 64, capacity: {memoryBytes: 256 * GiB, nanoCpus: 64e9, diskBytes: 1e12, pids: 1e6}, reserved: {memoryBytes: random(250) * GiB, nanoCpus: random(60) * 1e9, diskBytes: 0, pids: 0}});
  for (let k = 0; k < 20; k += 1) index.putImage(`n${i}`, `sha256:${random(k < 5 ? 10 : 5000)}`, []);
}

const kinds: Record<string, (n: number) => {labels?: Record<string, string>; expressions?: string[]; account?: string; imageId?: string; memory?: number}> = {
  'plain': () => ({}),
  'popular image': () => ({imageId: `sha256:${random(10)}`}),
  'rare image': () => ({imageId: `sha256:${random(5000)}`}),
  'spread group': () => ({labels: {'cetus.spread': `s${random(5000)}`}}),
  'rack': () => ({expressions: [`constraint:rack==r${random(200)}`]}),
  'not a rack, soft rack': () => ({expressions: [`constraint:rack!=r${random(200)}`, `constraint:rack==~r${random(200)}`]}),
  'beside a container': () => ({expressions: [`affinity:container==name${random(CONTAINERS / 2) * 2 + 1}`]}),
  'large memory': () => ({memory: 200 * GiB}),
};
for (const [kind, make] of Object.entries(kinds)) {
  const times: number[] = [];
  let considered = 0;
  for (let n = 0; n < 3000; n += 1) {
    const want = make(n);
    const request = {account: want.account ?? 'default', containerName: 'x', labels: want.labels ?? {}, reservation: {memoryBytes: want.memory ?? GiB, nanoCpus: 0, diskBytes: 0, pids: 0},
      imageReference: '', imageId: want.imageId ?? 'none', pinnedNodes: [], ports: [], expressions: want.expressions ?? []};
    const started = process.hrtime.bigint();
    try {
      considered += index.place(request).considered;
    } catch {
      // A refusal (the named node is full) is a valid outcome, and part of the time measured.
    }
    times.push(Number(process.hrtime.bigint() - started) / 1e6);
  }
  times.sort((a, b) => a - b);
  console.log(`${kind.padEnd(24)} p50 ${times[1500]!.toFixed(3)} ms  p99 ${times[2970]!.toFixed(3)} ms  mean considered ${(considered / 3000).toFixed(0)}`);
}
