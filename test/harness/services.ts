/** Images of real services (tools/service-images): an archive per machine, which the first who asks makes. */
import {execFileSync} from 'node:child_process';
import path from 'node:path';

export const NGINX = 'service/nginx:1';
export const POSTGRES = 'service/postgres:15';
export const REDIS = 'service/redis:7';
export const REAPER = 'service/reaper:1';

export function servicesArchive(): string {
  return execFileSync(path.resolve(__dirname, '../../tools/service-images/make.sh'), {encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit']}).trim();
}
