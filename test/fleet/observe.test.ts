import fc from 'fast-check';
import {applyObservation} from '../../lib/fleet/observe';
import type {ContainerObservation} from '../../lib/schema/container';
import {aContainer, anObservation} from './objects';

describe('applyObservation', () => {
  const running = aContainer({
    status: 'running',
    observation: anObservation({generation: 4, status: 'running', pid: 7}),
    attachments: [{networkId: 'n', networkName: 'bridge', endpointId: 'e', address: '172.17.0.2', prefixLength: 16, gateway: '172.17.0.1', mac: '02:42:ac:11:00:02', aliases: [], isDefaultRoute: true, internal: false}],
    publishedPorts: [{protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 8080}],
  });

  test('an observation of the same or a lower generation changes nothing', () => {
    expect(applyObservation(running, anObservation({generation: 4, status: 'exited'}))).toBeUndefined();
    expect(applyObservation(running, anObservation({generation: 3, status: 'exited'}))).toBeUndefined();
  });

  test('another container\'s observation changes nothing', () => {
    expect(applyObservation(running, anObservation({containerId: 'other', generation: 9, status: 'exited'}))).toBeUndefined();
  });

  test('an exit empties attachments and ports; a restart keeps them', () => {
    expect(applyObservation(running, anObservation({generation: 5, status: 'exited', exitCode: 3})))
      .toMatchObject({status: 'exited', attachments: [], publishedPorts: [], observation: {exitCode: 3}});
    const restarting = applyObservation(running, anObservation({generation: 5, status: 'restarting'}));
    expect(restarting).toMatchObject({status: 'restarting', publishedPorts: running.publishedPorts, attachments: running.attachments});
  });

  test('a container under removal stays so, and still learns how its process ended', () => {
    const after = applyObservation({...running, status: 'removing'}, anObservation({generation: 5, status: 'exited', exitCode: 137}));
    expect(after).toMatchObject({status: 'removing', observation: {status: 'exited', exitCode: 137}, attachments: []});
  });

  test('the order in which observations arrive does not matter', () => {
    const statuses = ['created', 'running', 'paused', 'restarting', 'exited'] as const;
    fc.assert(fc.property(
      fc.array(fc.constantFrom(...statuses), {minLength: 1, maxLength: 8}).chain(list => {
        const observations = list.map((status, i): ContainerObservation => anObservation({status, generation: 5 + i}));
        return fc.tuple(fc.constant(observations), fc.shuffledSubarray(observations, {minLength: observations.length}));
      }),
      ([ordered, shuffled]) => {
        const end = (list: ContainerObservation[]) => list.reduce((c, o) => applyObservation(c, o) ?? c, running);
        const a = end(ordered);
        const b = end(shuffled);
        expect(b.observation).toEqual(a.observation);
        expect(b.status).toBe(a.status);
      },
    ));
  });
});
