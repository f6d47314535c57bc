/** What of a build's options is not the engine's to decide. Pure; `unsupported` or `forbidden`, naming the option. */
import {CetusError} from '../../base/errors';
import {parseImageName} from '../../schema/reference';
import type {DatacenterConfig} from '../context';
import {gate, unsupported} from '../create/options';

const NETWORKS = new Set(['', 'default', 'bridge', 'none', 'host']);
const FALSE = new Set(['', '0', 'no', 'false', 'none']);
/** What takes from the confinement of a step. */
const UNSAFE = /^(seccomp|apparmor|label|systempaths)[:=]/;

export function checkBuild(config: DatacenterConfig, query: URLSearchParams): void {
  const mode = query.get('networkmode') ?? '';
  if (!NETWORKS.has(mode)) throw unsupported(`the network mode "${mode}" of a build`, 'builds run beside the containers, not among them: default, none or host');
  if (mode === 'host') gate('the host\'s network for a build (networkmode)', 'allowHostNetwork', config);
  // Older engines find the same wrong, and take it for their own failure.
  for (const name of query.getAll('t').filter((t) => t !== ''))
    if (parseImageName(name).digest !== undefined) throw new CetusError('invalid', 'build tag cannot contain a digest');
  if ((query.get('cgroupparent') ?? '') !== '') throw unsupported('the option cgroupparent of a build', 'the node decides where builds are accounted');
  const isolation = query.get('isolation') ?? '';
  if (isolation !== '' && isolation !== 'default') throw unsupported(`the isolation "${isolation}" of a build`, 'it exists only on Windows');
  if (!FALSE.has((query.get('squash') ?? '').toLowerCase())) throw new CetusError('invalid', 'squash is only supported with experimental mode');
  if (securityOptions(query).some((option) => UNSAFE.test(option))) gate('a security option of a build (securityopt)', 'allowPrivileged', config);
}

/** A JSON list, or the values of a repeated parameter. */
function securityOptions(query: URLSearchParams): string[] {
  return query.getAll('securityopt').flatMap((value) => {
    try {
      const list = JSON.parse(value) as unknown;
      return Array.isArray(list) ? list.filter((o): o is string => typeof o === 'string') : [];
    } catch {
      return [value];
    }
  });
}
