/** Links as the Engine writes them: compared line by line with dockerd 20.10. */
import {linkEnvironment, linkHosts, withEnvironment} from '../../../lib/agent/spec/links';
import type {ResolvedLink} from '../../../lib/schema/container';

const link = (over: Partial<ResolvedLink> = {}): ResolvedLink => ({alias: 'da-ta', name: 'db', hostname: 'abc', address: '172.17.0.2', ports: [], env: [], ...over});

describe('links', () => {
  it('names: the alias, the host name, and the name where that is another', () => {
    expect(linkHosts([link(), link({alias: 'db'})])).toBe('172.17.0.2\tda-ta abc db\n172.17.0.2\tdb abc\n');
  });

  it('variables: the first port, runs of ports, each port, the name, and the other\'s own variables', () => {
    expect(linkEnvironment('web', [link({ports: ['82/tcp', '80/tcp', '53/udp', '81/tcp'], env: ['PASS=s=3', 'PATH=/x', 'HOME=/h', 'bare']})])).toEqual([
      'DA_TA_PORT=udp://172.17.0.2:53',
      'DA_TA_PORT_80_TCP_START=tcp://172.17.0.2:80', 'DA_TA_PORT_80_TCP_ADDR=172.17.0.2', 'DA_TA_PORT_80_TCP_PROTO=tcp', 'DA_TA_PORT_80_TCP_PORT_START=80',
      'DA_TA_PORT_80_TCP_END=tcp://172.17.0.2:82', 'DA_TA_PORT_80_TCP_PORT_END=82',
      ...['53/udp', '80/tcp', '81/tcp', '82/tcp'].flatMap((text) => {
        const [port, protocol = ''] = text.split('/');
        const prefix = `DA_TA_PORT_${port}_${protocol.toUpperCase()}`;
        return [`${prefix}=${protocol}://172.17.0.2:${port}`, `${prefix}_ADDR=172.17.0.2`, `${prefix}_PORT=${port}`, `${prefix}_PROTO=${protocol}`];
      }),
      'DA_TA_NAME=/web/da-ta', 'DA_TA_ENV_PASS=s=3',
    ]);
    expect(linkEnvironment('web', [link({alias: 'x'})])).toEqual(['X_NAME=/web/x']);
  });

  it('the container\'s own variables win', () => {
    expect(withEnvironment(['A=own'], ['A=told', 'B=told'])).toEqual(['B=told', 'A=own']);
  });
});
