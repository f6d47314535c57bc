/** Bodies that are wrong, in the words of the Engine's decoder; and what it makes of those that are right but odd. The words were taken from dockerd's own answers. */
import {CetusError} from '../../lib/base/errors';
import {parseBody} from '../../lib/docker/body';
import type {BodyKind} from '../../lib/schema/options/bodies';

function why(work: () => unknown): string {
  try {
    return `nothing wrong: ${JSON.stringify(work())}`;
  } catch (err) {
    if (err instanceof CetusError && err.kind === 'invalid') return err.message;
    throw err;
  }
}

const field = (value: string, at: string, type: string): string => `invalid JSON: json: cannot unmarshal ${value} into Go struct field ${at} of type ${type}`;

describe('values of the wrong type', () => {
  it.each<[BodyKind, unknown, string]>([
    ['containerCreate', {Image: 5}, field('number', 'ContainerConfigWrapper.Image', 'string')],
    ['containerCreate', {Env: 'A=1'}, field('string', 'ContainerConfigWrapper.Env', '[]string')],
    ['containerCreate', {Env: [1]}, field('number', 'ContainerConfigWrapper.Env', 'string')],
    ['containerCreate', {Cmd: 5}, field('number', 'ContainerConfigWrapper.Cmd', 'string')],
    ['containerCreate', {Cmd: [5]}, field('array', 'ContainerConfigWrapper.Cmd', 'string')],
    ['containerCreate', {Cmd: {a: 1}}, field('object', 'ContainerConfigWrapper.Cmd', 'string')],
    ['containerCreate', {Tty: 'yes'}, field('string', 'ContainerConfigWrapper.Tty', 'bool')],
    ['containerCreate', {Labels: ['a=b']}, field('array', 'ContainerConfigWrapper.Labels', 'map[string]string')],
    ['containerCreate', {Labels: {a: {b: 1}}}, field('object', 'ContainerConfigWrapper.Labels', 'string')],
    ['containerCreate', {ExposedPorts: {'80/tcp': 5}}, field('number', 'ContainerConfigWrapper.ExposedPorts', 'struct {}')],
    ['containerCreate', {ExposedPorts: ['80/tcp']}, field('array', 'ContainerConfigWrapper.ExposedPorts', 'nat.PortSet')],
    ['containerCreate', {StopTimeout: 1.5}, field('number 1.5', 'ContainerConfigWrapper.StopTimeout', 'int')],
    ['containerCreate', {Healthcheck: {Interval: '5s'}}, field('string', 'HealthConfig.Healthcheck.Interval', 'time.Duration')],
    ['containerCreate', {Healthcheck: 'x'}, field('string', 'ContainerConfigWrapper.Healthcheck', 'container.HealthConfig')],
    ['containerCreate', {HostConfig: [1]}, field('array', 'ContainerConfigWrapper.HostConfig', 'container.HostConfig')],
    ['containerCreate', {HostConfig: {Memory: '64m'}}, field('string', 'HostConfig.HostConfig.Memory', 'int64')],
    ['containerCreate', {HostConfig: {BlkioWeight: 70000}}, field('number 70000', 'HostConfig.HostConfig.BlkioWeight', 'uint16')],
    ['containerCreate', {HostConfig: {CapAdd: 5}}, field('number', 'HostConfig.HostConfig.CapAdd', 'string')],
    ['containerCreate', {HostConfig: {PortBindings: {'80/tcp': [{HostPort: 8080}]}}}, field('number', 'PortBinding.HostConfig.PortBindings.HostPort', 'string')],
    ['containerCreate', {HostConfig: {PortBindings: {'80/tcp': {HostPort: '8080'}}}}, field('object', 'HostConfig.HostConfig.PortBindings', '[]nat.PortBinding')],
    ['containerCreate', {HostConfig: {PortBindings: []}}, field('array', 'HostConfig.HostConfig.PortBindings', 'nat.PortMap')],
    ['containerCreate', {HostConfig: {RestartPolicy: 'always'}}, field('string', 'HostConfig.HostConfig.RestartPolicy', 'container.RestartPolicy')],
    ['containerCreate', {HostConfig: {Mounts: [{Type: 'bind', BindOptions: {Propagation: 1}}]}}, field('number', 'BindOptions.HostConfig.Mounts.BindOptions.Propagation', 'mount.Propagation')],
    ['containerCreate', {HostConfig: {Mounts: [{VolumeOptions: {DriverConfig: {Options: {a: 1}}}}]}}, field('number', 'Driver.HostConfig.Mounts.VolumeOptions.DriverConfig.Options', 'string')],
    ['containerCreate', {HostConfig: {Mounts: {Type: 'bind'}}}, field('object', 'HostConfig.HostConfig.Mounts', '[]mount.Mount')],
    ['containerCreate', {HostConfig: {Devices: ['/dev/null']}}, field('string', 'HostConfig.HostConfig.Devices', 'container.DeviceMapping')],
    ['containerCreate', {HostConfig: {NetworkMode: 5}}, field('number', 'HostConfig.HostConfig.NetworkMode', 'container.NetworkMode')],
    ['containerCreate', {HostConfig: {ConsoleSize: [-1, 2]}}, field('number -1', 'HostConfig.HostConfig.ConsoleSize', 'uint')],
    ['containerCreate', {HostConfig: {ConsoleSize: 'a'}}, field('string', 'HostConfig.HostConfig.ConsoleSize', '[2]uint')],
    ['containerCreate', {HostConfig: {BlkioDeviceReadBps: [{Rate: -5}]}}, field('number -5', 'ThrottleDevice.HostConfig.BlkioDeviceReadBps.Rate', 'uint64')],
    ['containerCreate', {NetworkingConfig: {EndpointsConfig: 5}}, field('number', 'NetworkingConfig.NetworkingConfig.EndpointsConfig', 'map[string]*network.EndpointSettings')],
    ['containerCreate', {NetworkingConfig: {EndpointsConfig: {a: 5}}}, field('number', 'NetworkingConfig.NetworkingConfig.EndpointsConfig', 'network.EndpointSettings')],
    ['containerCreate', {NetworkingConfig: {EndpointsConfig: {a: {IPAMConfig: {IPv4Address: 5}}}}}, field('number', 'EndpointIPAMConfig.NetworkingConfig.EndpointsConfig.IPAMConfig.IPv4Address', 'string')],
    ['containerCreate', [], 'invalid JSON: json: cannot unmarshal array into Go value of type runconfig.ContainerConfigWrapper'],
    ['containerCreate', 'x', 'invalid JSON: json: cannot unmarshal string into Go value of type runconfig.ContainerConfigWrapper'],
    ['containerUpdate', {Memory: 'x'}, field('string', 'UpdateConfig.Memory', 'int64')],
    ['containerUpdate', {RestartPolicy: {Name: 5}}, field('number', 'RestartPolicy.RestartPolicy.Name', 'string')],
    ['execCreate', {Cmd: 5}, field('number', 'ExecConfig.Cmd', '[]string')],
    ['execStart', {Detach: 5}, field('number', 'ExecStartCheck.Detach', 'bool')],
    ['networkCreate', {IPAM: {Config: 5}}, field('number', 'IPAM.IPAM.Config', '[]network.IPAMConfig')],
    ['networkCreate', {IPAM: {Config: [{Subnet: 5}]}}, field('number', 'IPAMConfig.IPAM.Config.Subnet', 'string')],
    ['networkConnect', {EndpointConfig: {Aliases: 5}}, field('number', 'EndpointSettings.EndpointConfig.Aliases', '[]string')],
    ['networkDisconnect', {Force: 'x'}, field('string', 'NetworkDisconnect.Force', 'bool')],
    ['volumeCreate', {DriverOpts: {a: 5}}, field('number', 'VolumeCreateBody.DriverOpts', 'string')],
  ])('%s %j', (kind, body, message) => expect(why(() => parseBody(kind, body))).toBe(message));
});

describe('what is right but odd', () => {
  it.each<[unknown, unknown]>([
    [{image: 'x', TTY: true}, {Image: 'x', Tty: true}],
    [{image: 'x', Image: 'y'}, {Image: 'y'}],
    [{Env: null, Image: null, Surprise: 1}, {}],
    [{Env: ['A=1', null], Cmd: ['a', null]}, {Env: ['A=1', ''], Cmd: ['a', '']}],
    [{Cmd: 'ls'}, {Cmd: ['ls']}],
    [{HostConfig: {ConsoleSize: [5]}}, {HostConfig: {ConsoleSize: [5, 0]}}],
    [{HostConfig: {ConsoleSize: [5, 6, 7]}}, {HostConfig: {ConsoleSize: [5, 6]}}],
    [{HostConfig: {PortBindings: {'80/tcp': null}, Mounts: [null], Ulimits: [null]}}, {HostConfig: {PortBindings: {'80/tcp': null}, Mounts: [{}], Ulimits: [{}]}}],
    [{NetworkingConfig: {EndpointsConfig: {a: null, b: {}}}}, {NetworkingConfig: {EndpointsConfig: {a: null, b: {}}}}],
    [{ExposedPorts: {'80/tcp': null}}, {ExposedPorts: {'80/tcp': {}}}],
    [{HostConfig: {Memory: 9223372036854775807}}, {HostConfig: {Memory: 9223372036854775807}}],
  ])('%j', (given, body) => expect(parseBody('containerCreate', given)).toEqual(body));

  it('a key may have any name', () => {
    const body = parseBody<{Labels: Record<string, string>}>('containerCreate', JSON.parse('{"Labels":{"__proto__":"x","constructor":"y"}}'));
    expect(Object.entries(body.Labels)).toEqual([['__proto__', 'x'], ['constructor', 'y']]);
    expect(parseBody('containerCreate', JSON.parse('{"__proto__":{"Image":"x"},"constructor":5}'))).toEqual({});
  });

  it('absurd lengths are refused', () => {
    expect(why(() => parseBody('containerCreate', {Image: 'x'.repeat(65_537)}))).toBe('invalid JSON: Image has more than 65536 characters');
    expect(why(() => parseBody('containerCreate', {Env: Array.from({length: 10_001}, () => 'A=1')}))).toBe('invalid JSON: Env has more than 10000 elements');
  });
});
