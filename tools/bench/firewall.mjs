// What a dockerd changes on its machine and leaves behind: its chains and rules, the FORWARD chain's policy, its bridge, ip_forward.
// Only what was not there before goes, so that a Docker that the machine already has, and a Cetus that runs meanwhile, keep theirs.
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import {BRIDGE} from './engines.mjs';

const FORWARDING = '/proc/sys/net/ipv4/ip_forward';
const TABLES = ['filter', 'nat'];
const OF_DOCKERD = new RegExp(`DOCKER|${BRIDGE}|192\\.168\\.213\\.`);

const env = {...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`};
const rules = (table) => execFileSync('iptables', ['-w', '-t', table, '-S'], {encoding: 'utf8', env}).trim().split('\n');
// Through a shell: the listing quotes comments as a shell reads them.
const iptables = (table, command) => execFileSync('sh', ['-c', `iptables -w -t ${table} ${command}`], {stdio: 'ignore', env});
const bridgeExists = () => fs.existsSync(`/sys/class/net/${BRIDGE}`);

/** Call before the dockerd starts; call the answer once it has ended. */
export function rememberFirewall() {
  const before = Object.fromEntries(TABLES.map((table) => [table, new Set(rules(table))]));
  const forwarding = fs.readFileSync(FORWARDING, 'utf8');
  return () => {
    for (const table of TABLES) {
      const added = rules(table).filter((line) => !before[table].has(line) && OF_DOCKERD.test(line));
      for (const line of added.filter((l) => l.startsWith('-A '))) iptables(table, line.replace('-A', '-D'));
      for (const line of added.filter((l) => l.startsWith('-N '))) iptables(table, line.replace('-N', '-X'));
    }
    const policy = [...before.filter].find((line) => line.startsWith('-P FORWARD '));
    iptables('filter', policy);
    if (bridgeExists()) execFileSync('ip', ['link', 'del', BRIDGE], {stdio: 'ignore', env});
    fs.writeFileSync(FORWARDING, forwarding);
  };
}
