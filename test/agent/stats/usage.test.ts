/** Files of real machines, and what is read out of them. */
import {entries, usageV1} from '../../../lib/agent/stats/cgroup-v1';
import {ioEntries, usageV2} from '../../../lib/agent/stats/cgroup-v2';
import {directoryOf, hierarchies} from '../../../lib/agent/stats/places';
import {sampleLine} from '../../../lib/agent/stats/sample';
import {interfaces, machineCpu} from '../../../lib/agent/stats/usage';

const V1: Record<string, string> = {
  'cpuacct.usage': '88535501\n', 'cpuacct.usage_percpu': '53133580 35401921 \n', 'cpuacct.stat': 'user 2\nsystem 6\n', 'cpu.stat': 'nr_periods 7\nnr_throttled 3\nthrottled_time 11000\n',
  'memory.usage_in_bytes': '565248\n', 'memory.max_usage_in_bytes': '3788800\n', 'memory.failcnt': '4\n', 'memory.limit_in_bytes': '9223372036854771712\n',
  'memory.stat': 'cache 8192\nrss 110592\nrss_huge 0\nshmem 0\nmapped_file 0\ninactive_file 4096\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 8192\n',
  'pids.current': '2\n', 'pids.max': 'max\n',
  'blkio.throttle.io_service_bytes_recursive': '254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 8192\n254:0 Total 12288\nTotal 12288\n',
  'blkio.throttle.io_serviced_recursive': '254:0 Read 1\nTotal 1\n',
};
const V2: Record<string, string> = {
  'cpu.stat': 'usage_usec 94211\nuser_usec 31403\nsystem_usec 62808\nnr_periods 5\nnr_throttled 2\nthrottled_usec 900\n',
  'memory.current': '1413120\n', 'memory.max': '67108864\n', 'memory.events': 'low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n',
  'memory.stat': 'anon 90112\nfile 1208320\nkernel_stack 16384\ninactive_file 1204224\nworkingset_refault_anon 2\nworkingset_refault_file 3\npgfault 2013\nzswap 0\n',
  'pids.current': '1\n', 'pids.max': '100\n', 'io.stat': '254:0 rbytes=1216512 wbytes=4096 rios=38 wios=1 dbytes=0 dios=0\n7:0 \n8:16\n',
};
const NET_DEV = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1060      14    1    2    0     0          0         0      648       8    3    4    0     0       0          0
  eth1:18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
`;
const of = (files: Record<string, string>) => (name: string): string | undefined => files[name];

describe('cgroup v1', () => {
  const usage = usageV1(() => of(V1));

  it('times, throttling and each processor', () => {
    expect(usage.cpu).toEqual({total: 88535501n, perCpu: [53133580n, 35401921n], user: 20_000_000n, kernel: 60_000_000n, periods: 7n, throttledPeriods: 3n, throttledTime: 11000n});
  });

  it('memory: the Engine\'s fields and no others', () => {
    expect(usage.memory).toMatchObject({usage: 565248n, maxUsage: 3788800n, failcnt: 4n, limit: 9223372036854771712n});
    expect(usage.memory.stats).toMatchObject({cache: 8192n, total_cache: 8192n, total_rss: 0n, hierarchical_memory_limit: 9223372036854771712n});
    expect(Object.keys(usage.memory.stats)).toHaveLength(32);
    expect(usage.memory.stats).not.toHaveProperty('shmem');
  });

  it('pids and devices', () => {
    expect(usage.pids).toEqual({current: 2n, limit: 0n});
    expect(usage.blkio.io_service_bytes).toEqual([{op: 'Read', value: 4096n}, {op: 'Write', value: 8192n}, {op: 'Sync', value: 8192n}, {op: 'Total', value: 12288n}].map((e) => ({major: 254, minor: 0, ...e})));
    expect(usage.blkio.io_serviced).toHaveLength(1);
    expect(usage.blkio.io_queue).toEqual([]);
    expect(entries('8:0 77\n')).toEqual([{major: 8, minor: 0, op: '', value: 77n}]);
  });

  it('a scheduler that counts more than the throttle is asked first', () => {
    expect(usageV1(() => of({...V1, 'blkio.io_service_bytes_recursive': '8:0 Read 5\n'})).blkio.io_service_bytes).toEqual([{major: 8, minor: 0, op: 'Read', value: 5n}]);
  });
});

describe('cgroup v2', () => {
  const usage = usageV2(of(V2));

  it('times in nanoseconds, without processors', () => {
    expect(usage.cpu).toEqual({total: 94_211_000n, user: 31_403_000n, kernel: 62_808_000n, periods: 5n, throttledPeriods: 2n, throttledTime: 900_000n});
  });

  it('memory: current, limit, kills, and the Engine\'s names', () => {
    expect(usage.memory).toMatchObject({usage: 1413120n, limit: 67108864n, failcnt: 1n, stats: {anon: 90112n, inactive_file: 1204224n, workingset_refault: 5n, pgscan: 0n}});
    expect(usage.memory.maxUsage).toBeUndefined();
    expect(usage.memory.stats).not.toHaveProperty('zswap');
    expect(usageV2(of({...V2, 'memory.max': 'max\n'})).memory.limit).toBe(2n ** 64n - 1n);
  });

  it('pids and devices; a device without numbers is none', () => {
    expect(usage.pids).toEqual({current: 1n, limit: 100n});
    expect(usage.blkio).toEqual({io_service_bytes: [{major: 254, minor: 0, op: 'read', value: 1216512n}, {major: 254, minor: 0, op: 'write', value: 4096n}]});
    expect(ioEntries('')).toEqual([]);
  });
});

describe('the machine', () => {
  it('adds up seven times of all processors', () => {
    expect(machineCpu('cpu  100 1 50 1000 5 0 4 77 0 0\ncpu0 1\ncpu1 1\nintr 5\n')).toEqual({systemCpu: 11_600_000_000n, onlineCpus: 2});
  });

  it('interfaces but the loopback', () => {
    expect(interfaces(NET_DEV)).toEqual({
      eth0: {rx_bytes: 1060n, rx_packets: 14n, rx_errors: 1n, rx_dropped: 2n, tx_bytes: 648n, tx_packets: 8n, tx_errors: 3n, tx_dropped: 4n},
      eth1: {rx_bytes: 2n ** 64n - 1n, rx_packets: 0n, rx_errors: 0n, rx_dropped: 0n, tx_bytes: 0n, tx_packets: 0n, tx_errors: 0n, tx_dropped: 0n},
    });
    expect(interfaces('')).toEqual({});
  });

  it('hierarchies: v1 with several controllers in one, a hybrid beside an empty v2, and v2 alone', () => {
    const hybrid = hierarchies('30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n');
    expect(hybrid.version).toBe(1);
    expect(directoryOf(hybrid, 'cpuacct', '/cetus-x/c1')).toBe('/sys/fs/cgroup/cpu,cpuacct/cetus-x/c1');
    expect(directoryOf(hybrid, 'pids', '/cetus-x/c1')).toBeUndefined();
    const unified = hierarchies('30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n');
    expect(directoryOf(unified, 'memory', '/cetus-x/c1')).toBe('/sys/fs/cgroup/cetus-x/c1');
  });
});

describe('the Engine\'s object', () => {
  const container = {id: 'f'.repeat(64), name: 'web'};
  const machine = {systemCpu: 5n, onlineCpus: 2, memory: 8_000_000_000n};
  const networks = interfaces(NET_DEV);

  it('of a container that does not run is all zeroes', () => {
    expect(JSON.parse(sampleLine(container, undefined))).toEqual({
      name: '/web', id: container.id, read: '0001-01-01T00:00:00Z', preread: '0001-01-01T00:00:00Z', num_procs: 0, storage_stats: {}, pids_stats: {}, memory_stats: {},
      blkio_stats: Object.fromEntries(['io_service_bytes', 'io_serviced', 'io_queue', 'io_service_time', 'io_wait_time', 'io_merged', 'io_time', 'sectors'].map((n) => [`${n}_recursive`, null])),
      cpu_stats: {cpu_usage: {total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0}, throttling_data: {periods: 0, throttled_periods: 0, throttled_time: 0}},
      precpu_stats: {cpu_usage: {total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0}, throttling_data: {periods: 0, throttled_periods: 0, throttled_time: 0}},
    });
  });

  it('prints numbers of 64 bits whole, and the machine where there is no limit', () => {
    const line = sampleLine(container, {read: 'r', usage: usageV1(() => of(V1)), networks, machine});
    expect(line).toContain('"hierarchical_memory_limit":9223372036854771712');
    expect(line).toContain('"rx_bytes":18446744073709551615');
    expect(JSON.parse(line)).toMatchObject({memory_stats: {limit: 8_000_000_000, failcnt: 4, max_usage: 3788800}, pids_stats: {current: 2}, cpu_stats: {system_cpu_usage: 5, online_cpus: 2, cpu_usage: {percpu_usage: [53133580, 35401921]}}});
    expect(JSON.parse(line)).not.toHaveProperty('pids_stats.limit');
  });

  it('has a precpu where there was a sample before, and on v2 neither a peak nor processors', () => {
    const sample = {usage: usageV2(of(V2)), networks: {}, machine};
    const line = JSON.parse(sampleLine(container, {...sample, read: 'two'}, {...sample, read: 'one'})) as Record<string, object>;
    expect(line).toMatchObject({read: 'two', preread: 'one', precpu_stats: {cpu_usage: {total_usage: 94_211_000}, online_cpus: 2}, memory_stats: {limit: 67108864}, pids_stats: {limit: 100}});
    expect(line).not.toHaveProperty('networks');
    expect(line).not.toHaveProperty('memory_stats.max_usage');
    expect(line).not.toHaveProperty('cpu_stats.cpu_usage.percpu_usage');
    expect(line).toMatchObject({blkio_stats: {io_serviced_recursive: null, io_service_bytes_recursive: [{op: 'read'}, {op: 'write'}]}});
  });
});
