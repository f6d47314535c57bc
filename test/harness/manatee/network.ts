/**
 * A network of the test's own: a bridge in a namespace ("hub"), one namespace per machine on it, and this process at US. No firewall of this machine sees
 * what the machines say to each other, and a machine's connections are cut by rules in its own namespace, in either direction, as packets that vanish.
 */
import {execFileSync} from 'node:child_process';
import {readFileSync, readlinkSync, readdirSync, statSync} from 'node:fs';

const MAX_MACHINES = 8;

export type Direction = 'in' | 'out' | 'both';
/** What is cut off: all machines on the network but this one, ZooKeeper (ports at US), or everything, clients included. */
export type From = 'peers' | 'zookeeper' | 'everything';

function sh(program: string, args: string[], input?: string): string {
  return execFileSync(program, args, {input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe']});
}

export class Network {
  private readonly hub: string;
  private readonly machines = new Map<string, string>();

  private constructor(readonly tag: string, private readonly prefix: string) {
    this.hub = `${tag}-hub`;
  }

  /** `tag` begins every name that it makes: at most eight characters. */
  static create(tag: string): Network {
    const network = new Network(tag, unusedPrefix());
    try {
      sh('ip', ['netns', 'add', network.hub]);
      sh('ip', ['-n', network.hub, 'link', 'set', 'lo', 'up']);
      sh('ip', ['-n', network.hub, 'link', 'add', 'bridge', 'type', 'bridge']);
      sh('ip', ['-n', network.hub, 'link', 'set', 'bridge', 'up']);
      sh('ip', ['link', 'add', tag, 'type', 'veth', 'peer', 'name', 'us', 'netns', network.hub]);
      sh('ip', ['-n', network.hub, 'link', 'set', 'us', 'master', 'bridge', 'up']);
      sh('ip', ['addr', 'add', `${network.us}/24`, 'dev', tag]);
      sh('ip', ['link', 'set', tag, 'up']);
      return network;
    } catch (err) {
      network.remove();
      throw err;
    }
  }

  /** Our own address on it: ZooKeeper's, and the clients'. */
  get us(): string { return `${this.prefix}.254`; }

  /** Answers its address. */
  join(machine: string): string {
    if (this.machines.size >= MAX_MACHINES) throw new Error('the network is full');
    const address = `${this.prefix}.${this.machines.size + 1}`;
    const ns = this.namespace(machine);
    sh('ip', ['netns', 'add', ns]);
    this.machines.set(machine, address);
    const port = `m${this.machines.size}`;
    sh('ip', ['-n', this.hub, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', ns]);
    sh('ip', ['-n', this.hub, 'link', 'set', port, 'master', 'bridge', 'up']);
    sh('ip', ['-n', ns, 'addr', 'add', `${address}/24`, 'dev', 'eth0']);
    for (const link of ['lo', 'eth0']) sh('ip', ['-n', ns, 'link', 'set', link, 'up']);
    return address;
  }

  namespace(machine: string): string { return `${this.tag}-${machine}`; }
  path(machine: string): string { return `/run/netns/${this.namespace(machine)}`; }

  /** In place of what was cut before. `zookeeper` are its ports. */
  cut(machine: string, from: From, direction: Direction, zookeeper: number[]): void {
    const peers = [...this.machines.values()].filter((address) => address !== this.machines.get(machine)).join(', ');
    const ports = zookeeper.join(', ');
    const match: Record<From, [string, string]> = {
      peers: [`ip saddr { ${peers} }`, `ip daddr { ${peers} }`],
      zookeeper: [`ip saddr ${this.us} tcp sport { ${ports} }`, `ip daddr ${this.us} tcp dport { ${ports} }`],
      everything: ['iifname != "lo"', 'oifname != "lo"'],
    };
    const [incoming, outgoing] = match[from];
    const chain = (name: string, hook: string, rule: string, wanted: boolean): string => `chain ${name} { type filter hook ${hook} priority 0;\n ${wanted ? `${rule} drop` : ''}\n }\n`;
    this.rules(machine, `table inet cut {\n${chain('arriving', 'input', incoming, direction !== 'out')}${chain('leaving', 'output', outgoing, direction !== 'in')}}`);
  }

  mend(machine: string): void {
    this.rules(machine, '');
  }

  private rules(machine: string, rules: string): void {
    sh('nsenter', [`--net=${this.path(machine)}`, 'nft', '-f', '-'], `table inet cut\ndelete table inet cut\n${rules}\n`);
  }

  /** Every process of the machine: those in its namespace. */
  processes(machine: string): number[] {
    return processesIn(this.path(machine));
  }

  /** The namespaces' processes must have ended. */
  remove(): void {
    removeNamespaces((name) => name.startsWith(`${this.tag}-`));
    // The pair goes with the hub, a moment later.
    try {
      sh('ip', ['link', 'del', this.tag]);
    } catch {
      // gone already
    }
  }

  /** Of networks that nobody is left to remove, by their namespaces' names. */
  static sweep(isDead: (namespace: string) => boolean): void {
    removeNamespaces((name) => {
      if (!isDead(name)) return false;
      for (const pid of processesIn(`/run/netns/${name}`)) process.kill(pid, 'SIGKILL');
      return true;
    });
  }
}

function removeNamespaces(wanted: (name: string) => boolean): void {
  for (const name of sh('ip', ['netns', 'list']).split('\n').map((line) => line.split(' ')[0]!).filter((one) => one !== '' && wanted(one))) sh('ip', ['netns', 'del', name]);
}

function processesIn(namespace: string): number[] {
  const {ino} = statSync(namespace);
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/ns/net`) === `net:[${ino}]` && !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
    } catch {
      return false; // it has ended
    }
  }).map(Number);
}

/** Of the addresses that are nobody's on the internet (RFC 2544). */
function unusedPrefix(): string {
  const taken = sh('ip', ['-4', 'addr']);
  for (;;) {
    const prefix = `198.18.${Math.floor(Math.random() * 256)}`;
    if (!taken.includes(`${prefix}.`)) return prefix;
  }
}
