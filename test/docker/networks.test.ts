import request from 'supertest';
import {closeWorlds, world} from './world';

afterEach(closeWorlds);

describe('networks', () => {
  it('create, connect, disconnect, remove reach their verbs', async () => {
    const {url, fake} = await world();
    await request(url).post('/networks/create').send({Name: 'n', Driver: 'bridge', CheckDuplicate: true, IPAM: {Config: [{Subnet: '10.0.0.0/24'}]}, Scope: ''});
    await request(url).post('/networks/n/connect').send({Container: 'c', EndpointConfig: {Aliases: ['a'], IPAddress: '', Links: []}});
    await request(url).post('/networks/n/disconnect').send({container: 'c', force: true});
    await request(url).delete('/networks/n');
    expect(fake.calls.map((c) => [c.verb, ...c.args])).toEqual([
      ['network.create', {Name: 'n', Driver: 'bridge', IPAM: {Config: [{Subnet: '10.0.0.0/24'}]}, Scope: ''}],
      ['connect', 'n', 'c', {Aliases: ['a'], Links: []}], ['disconnect', 'n', 'c', true], ['network.remove', 'n'],
    ]);
  });

  it.each([
    ['/networks/create', {}, "network name is required"],
    ['/networks/create', {Name: 5}, 'cannot unmarshal number into Go struct field NetworkCreateRequest.Name of type string'],
    ['/networks/create', {Name: 'n', Scope: 'swarm'}, 'the option Scope'],
    ['/networks/n/connect', {Container: ''}, 'value is empty'],
    ['/networks/n/connect', {Container: 'c', EndpointConfig: {DriverOpts: {a: 'b'}}}, 'EndpointConfig.DriverOpts'],
    ['/containers/create', {Image: 'x', NetworkingConfig: {EndpointsConfig: {n: {DriverOpts: {a: 'b'}}}}}, 'EndpointsConfig[n].DriverOpts'],
    ['/volumes/create', {ClusterVolumeSpec: {Group: 'x'}}, 'ClusterVolumeSpec'],
  ])('POST %s %j is refused: %s', async (path, body, text) => {
    const {url, fake} = await world();
    const got = await request(url).post(path).send(body);
    expect(got.status).toBe(400);
    expect((got.body as {message: string}).message).toContain(text);
    expect(fake.calls).toEqual([]);
  });
});

describe('volumes', () => {
  it('create without a body makes an anonymous one', async () => {
    const {url, fake} = await world();
    expect((await request(url).post('/volumes/create')).status).toBe(201);
    expect(fake.calls.at(-1)).toEqual({verb: 'volume.create', args: [{}]});
  });

  it('remove', async () => {
    const {url, fake} = await world();
    expect((await request(url).delete('/volumes/data?force=1')).status).toBe(204);
    expect(fake.calls.at(-1)).toEqual({verb: 'volume.remove', args: ['data', true]});
    expect((await request(url).get('/volumes/none')).body).toEqual({message: 'get none: no such volume'});
  });
});
