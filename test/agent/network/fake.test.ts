import {createFakeNetworking} from '../../../lib/agent/network/fake';
import type {NodeNetwork} from '../../../lib/schema/agent';
import type {NetworkAttachment, PublishedPort} from '../../../lib/schema/container';

const network: NodeNetwork = {id: 'n1', account: 'default', name: 'bridge', bridgeName: 'br-1', subnet: '172.17.0.0/16', gateway: '172.17.0.1', internal: false, options: {}};
const at = (host: number): NetworkAttachment => ({
  networkId: 'n1', networkName: 'bridge', endpointId: `e${host}`, address: `172.17.0.${host}`, prefixLength: 16, gateway: '172.17.0.1', mac: '02:42:ac:11:00:02', aliases: [], isDefaultRoute: true, internal: false,
});
const port: PublishedPort = {protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 8080};
const sandbox = (containerId: string, host: number, ports: PublishedPort[] = []) => ({containerId, hostname: containerId, networks: [network], attachments: [at(host)], ports});

test('the fake is repeatable and refuses as the real one does', async () => {
  const net = createFakeNetworking();
  const {netnsPath} = await net.createSandbox(sandbox('a', 2, [port]));
  expect((await net.createSandbox(sandbox('a', 2, [port]))).netnsPath).toBe(netnsPath);
  await expect(net.createSandbox(sandbox('b', 3, [port]))).rejects.toMatchObject({kind: 'conflict', message: 'driver failed programming external connectivity on endpoint b (e3): Bind for 0.0.0.0:8080 failed: port is already allocated'});
  net.occupy({protocol: 'tcp', hostIp: '', hostPort: 9090});
  await expect(net.createSandbox(sandbox('b', 3, [{...port, hostPort: 9090}]))).rejects.toMatchObject({message: /bind: address already in use$/});
  await expect(net.removeNetwork('n1')).rejects.toMatchObject({kind: 'conflict', message: 'network bridge has active endpoints'});
  expect(await net.sandboxes()).toEqual(['a']);
  await net.removeSandbox('a');
  await net.removeSandbox('a');
  await net.removeNetwork('n1');
  expect([await net.sandboxes(), await net.bridges(), await net.publishedPorts()]).toEqual([[], [], []]);
});
