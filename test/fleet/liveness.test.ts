import fc from 'fast-check';
import {judge, LOST_AFTER_LEASES, type LivenessView} from '../../lib/fleet/liveness';

const view = (part: Partial<LivenessView>): LivenessView => ({
  stored: 'alive', lastHeartbeatMs: 100_000, listeningSinceMs: 0, nowMs: 100_000, leaseMs: 10_000, graceMs: 20_000, ...part,
});

describe('judge', () => {
  test('within the lease a node is alive, and nothing is written', () => {
    expect(judge(view({nowMs: 110_000}))).toBeUndefined();
    expect(judge(view({stored: 'suspect'}))).toMatchObject({liveness: 'alive'});
    expect(judge(view({stored: 'lost'}))).toMatchObject({liveness: 'alive'});
  });

  test('silence makes suspect, then lost, with the time in the reason', () => {
    expect(judge(view({nowMs: 110_001}))).toEqual({liveness: 'suspect', reason: 'no heartbeat for 10 s'});
    expect(judge(view({stored: 'suspect', nowMs: 131_000}))).toEqual({liveness: 'lost', reason: 'no heartbeat for 31 s'});
  });

  test('a process that has just started waits out the grace and a lease', () => {
    const fresh = {lastHeartbeatMs: undefined, listeningSinceMs: 100_000};
    expect(judge(view({...fresh, nowMs: 119_999}))).toBeUndefined();
    expect(judge(view({...fresh, nowMs: 130_000}))).toBeUndefined();
    expect(judge(view({...fresh, nowMs: 130_001}))).toMatchObject({liveness: 'suspect'});
  });

  test('a fenced node stays fenced, whatever it says', () => {
    expect(judge(view({stored: 'fenced'}))).toBeUndefined();
  });

  test('never lost before three leases of silence, never alive after one, never a change during the grace without a heartbeat', () => {
    fc.assert(fc.property(
      fc.record({
        stored: fc.constantFrom('alive' as const, 'suspect' as const, 'lost' as const), listeningSinceMs: fc.nat(50_000), leaseMs: fc.integer({min: 1000, max: 20_000}),
        graceMs: fc.nat(40_000), age: fc.nat(200_000), heard: fc.boolean(), silence: fc.nat(200_000),
      }),
      r => {
        const nowMs = r.listeningSinceMs + r.age;
        const silentMs = Math.min(r.silence, r.age);
        const verdict = judge({...r, nowMs, lastHeartbeatMs: r.heard ? nowMs - silentMs : undefined});
        if (verdict?.liveness === 'lost') expect(r.heard ? silentMs : r.age).toBeGreaterThan(LOST_AFTER_LEASES * r.leaseMs);
        if (verdict?.liveness === 'alive') expect(r.heard && silentMs <= r.leaseMs).toBe(true);
        if (!r.heard && r.age < r.graceMs) expect(verdict).toBeUndefined();
        if (verdict) expect(verdict.liveness).not.toBe(r.stored);
      },
    ));
  });
});
