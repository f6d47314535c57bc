/** The distribution's programs: of the version that the data have, so that a newer Postgres may be installed beside a running cluster; of the newest for new data. */
import {execFile} from 'node:child_process';
import {constants} from 'node:fs';
import {access, readdir} from 'node:fs/promises';
import path from 'node:path';
import {promisify} from 'node:util';
import {CetusError} from '../../base/errors';

const run = promisify(execFile);
const OLDEST = 14;
const DISTRIBUTION = '/usr/lib/postgresql';

export class Binaries {
  private constructor(private readonly dirs: ReadonlyMap<number, string>) {}

  /** `binDir` where its operator says so. Throws `unavailable` where there is none. */
  static async find(binDir?: string): Promise<Binaries> {
    const candidates = binDir ? [binDir] : (await readdir(DISTRIBUTION).catch(() => [])).map((name) => path.join(DISTRIBUTION, name, 'bin'));
    const found: [number, string][] = [];
    for (const dir of candidates) {
      const program = path.join(dir, 'postgres');
      if (!(await access(program, constants.X_OK).then(() => true, () => false))) continue;
      const version = Number(/\d+/.exec((await run(program, ['--version'])).stdout)?.[0]);
      if (version >= OLDEST) found.push([version, dir]);
    }
    if (found.length === 0) throw new CetusError('unavailable', `no Postgres ${OLDEST} or later was found in ${binDir ?? DISTRIBUTION}: install the distribution's package postgresql, or say where its programs are`);
    return new Binaries(new Map(found.sort(([a], [b]) => b - a)));
  }

  get newest(): number {
    return [...this.dirs.keys()][0]!;
  }

  async of(version = this.newest): Promise<string> {
    const dir = this.dirs.get(version);
    if (!dir) throw new CetusError('unavailable', `the data are of Postgres ${version}, and there is only ${[...this.dirs.keys()].join(', ')}`);
    return dir;
  }
}
