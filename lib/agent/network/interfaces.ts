/** What the machine's interfaces are now, as iproute2 and /proc tell. Reads only. */
import {readFile} from 'node:fs/promises';
import {CetusError} from '../../base/errors';
import {tool, tryTool} from './tool';

export const DEFAULT_MTU = 1500;

/** The interface's alias; undefined: no such interface; '': no alias. */
export async function linkAlias(name: string): Promise<string | undefined> {
  const {code, output} = await tryTool('ip', ['-j', 'link', 'show', 'dev', name]);
  if (code !== 0) return undefined;
  return (JSON.parse(output) as {ifalias?: string}[])[0]?.ifalias ?? '';
}

/** The interface that has this very address: a second one with it would split the way back between the two. */
export async function holderOf(address: string): Promise<string | undefined> {
  const found = JSON.parse(await tool('ip', ['-j', '-4', 'address', 'show', 'to', `${address}/32`]) || '[]') as {ifname?: string}[];
  return found.find(i => i.ifname)?.ifname;
}

/** Of the interface that has this very address; `invalid` where none has. */
export async function mtuAt(address: string): Promise<number> {
  const found = JSON.parse(await tool('ip', ['-j', '-4', 'address', 'show', 'to', `${address}/32`]) || '[]') as {mtu?: number}[];
  const mtu = found.find(i => i.mtu)?.mtu;
  if (mtu === undefined) throw new CetusError('invalid', `underlay ${address}: no interface of this machine has the address`);
  return mtu;
}

/** Of the interface with the default route: a bridge with a higher one would leave it to luck whether large packets get through. */
export async function uplinkMtu(): Promise<number> {
  const route = (await readFile('/proc/net/route', 'utf8')).split('\n').map(line => line.split('\t')).find(f => f[1] === '00000000');
  return Number(route?.[8]) || (route ? await deviceMtu(route[0]!) : DEFAULT_MTU);
}

async function deviceMtu(device: string): Promise<number> {
  const {output} = await tryTool('ip', ['-j', 'link', 'show', 'dev', device]);
  return output ? (JSON.parse(output) as {mtu: number}[])[0]?.mtu ?? DEFAULT_MTU : DEFAULT_MTU;
}
