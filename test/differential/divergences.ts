/**
 * Where Cetus and dockerd 20.10 answer differently, and why that is right. A difference that no row explains fails the test, and so does a row
 * that explains nothing any more. README.md of lib/docker prints this table.
 */
import type {Difference} from './compare';

export interface Divergence {
  /** "noun: step", or a pattern over it. Absent: any. */
  step?: string | RegExp;
  /** Over what differs: "status", "message", "header.content-type", "body.State.Pid". */
  at: string | RegExp;
  /** What either says, as a pattern over its JSON. */
  docker?: RegExp;
  cetus?: RegExp;
  /** What dockerd says becomes what Cetus says when these are applied. */
  rewrite?: [RegExp, string][];
  /** In a person's words, for the table. */
  what: string;
  why: string;
}

const VERSION_28 = 'Cetus speaks as Engine 28 does';
const CASE = 'a message begins with a small letter';
const REFUSED_EARLY = 'what cannot mean anything is refused when it is asked for, not when it is started, or never';
const OF_A_NODE = 'files of a node, no client can open them';

/** Steps by their names: "create: a, b" -> the steps a and b, their start and removal. */
function steps(noun: string, ...names: string[]): RegExp {
  const escaped = names.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${noun}: (${escaped.join('|')})(, started|, removed|: create|: start|: inspect|: wait|: remove)?$`);
}

const WORDS_28: [RegExp, string][] = [
  [/^You cannot remove a running container (\S+)\. Stop .*$/, 'cannot remove container "/d-life": container is running: stop the container before removing or force remove'],
  [/^You cannot remove a paused container (\S+)\. Unpause .*$/, 'cannot remove container "/d-life": container is paused and must be unpaused first'],
  [/^invalid restart policy '(.*)'$/, "invalid restart policy: unknown policy '$1'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"],
  [/^maximum retry count cannot be negative$/, 'invalid restart policy: maximum retry count cannot be negative'],
  [/^maximum retry count cannot be used with restart policy '.*'$/, "invalid restart policy: maximum retry count can only be used with 'on-failure'"],
  [/^strconv\.Atoi: parsing "(.*)": invalid syntax$/, 'invalid resize height "$1": invalid syntax'],
  [/^Content-Type specified \((.+)\) must be 'application\/json'$/, "unsupported Content-Type header ($1): must be 'application/json'"],
  [/^Content-Type specified \(\) must be 'application\/json'$/, 'malformed Content-Type header (): mime: no media type'],
  [/^(image with reference \S+ was found but) does not match the specified platform: wanted (\S+), actual: (\S+)$/, '$1 its platform ($3) does not match the specified platform ($2)'],
  [/^no such image: [^:]+(?::[^:\s]+)?: (.*)$/, '$1'],
  [/^(error while removing network: network \S+) id \S+ has active endpoints$/, '$1 has active endpoints (name:"d-netted" id:"<id>")'],
  [/^Pool overlaps/, 'invalid pool request: Pool overlaps'],
  [/^plugin "(.*)" not found$/, 'could not find plugin $1 in v1 plugin registry: plugin "$1" not found'],
  [/^network-scoped alias is supported only for containers in user defined networks$/, 'network-scoped aliases are only supported for user-defined networks'],
  [/^bridge driver doesn't support multiple subnets$/, 'bridge driver supports only one IPv4 subnet'],
];

export const DIVERGENCES: readonly Divergence[] = [
  // Statuses
  {at: 'status', docker: /^500$/, cetus: /^400$/, what: 'a mistake of the caller is 400 where 20.10 has 500', why: 'it had not classified these; Engine 28 has most of them, Cetus all but those that 28 still answers with 500 (lib/docker/errors.ts)'},
  {step: steps('system', 'too old', 'much too old', 'too new', 'too new to create', 'far too new'), at: /^(message|header\..*)$/, what: 'the oldest and the newest version of the API are 1.24 and 1.51', why: VERSION_28},
  {at: /^header\.(docker-experimental|ostype|api-version|server)$/, docker: /absent/, what: 'answers before the routes, and hijacked streams, carry Api-Version, Ostype, Server as all others do', why: 'every answer says who answers'},
  {step: /^(containers|streams): attach /, at: 'header.content-type', cetus: /application\/json/, what: 'errors of attach before the stream are JSON, not text of type raw-stream', why: 'every error >= 400 has one shape'},
  {step: 'system: cancel no build', at: /./, what: 'POST /build/cancel is not there', why: 'the described API does not have it'},

  // Words
  {at: 'message', docker: /^"[A-Z]/, rewrite: [[/^(.)/, '\\l'], [/: (Container|The)/, ': \\l']], what: CASE, why: VERSION_28},
  {at: 'message', rewrite: [[/^/, 'invalid JSON: ']], what: 'a body that is no JSON: "invalid JSON: " before the decoder\'s words', why: VERSION_28},
  {at: 'message', docker: /json: cannot unmarshal/, cetus: /invalid JSON: /, what: 'a field of another type is named by its path, with the types that it may have', why: "the names of Go's types say nothing to a client, and differ between versions of the Engine"},
  {at: 'message', docker: /unexpected end of JSON input|json: cannot|invalid character/, cetus: /invalid filter: /, what: 'filters that are no JSON: "invalid filter: " before what is wrong', why: VERSION_28},
  {at: 'message', rewrite: [[/^EOF$/, 'invalid JSON: got EOF while reading request body']], what: 'no body where one is needed', why: VERSION_28},
  {at: 'message', rewrite: WORDS_28, what: 'other words for the same: removing what runs or is paused, restart policies, sizes of terminals, media types, platforms, images that are not there', why: VERSION_28},
  {at: 'message', docker: /strconv/, cetus: /invalid value for |invalid resize|invalid port|invalid filter|invalid limit/, what: 'a value that is no number: the parameter is named', why: 'who gave several wants to know which'},
  {at: /^(message|body\.State\.Error|body\.Error\.Message)$/, docker: /failed to create shim task/, cetus: /failed to create task for container: failed to create shim task/, what: 'what the runtime says has "failed to create task for container: " before it', why: VERSION_28},
  {step: steps('containers', 'kill with signal -1'), at: 'message', what: 'signal -1 is called -1, not 18446744073709551615', why: VERSION_28},
  {step: 'containers: remove a link that is none', at: 'status', docker: /500/, cetus: /409/, what: 'to remove the own name of a container as a link is 409', why: 'its text calls it a conflict'},
  {step: steps('containers', 'list before nobody', 'list since nobody'), at: /status|message/, what: 'a filter `before` or `since` that names no container is 404', why: 'as every other name that is not there'},
  {step: steps('images', 'inspect a name in capitals'), at: 'message', docker: /no such image: Nosuch: invalid/, what: 'a name that is none is called so', why: VERSION_28},

  // Shapes
  {at: /HostConfig\.NetworkMode$/, docker: /default/, cetus: /bridge/, what: 'the default network is called by its name', why: VERSION_28},
  {at: 'body.HostConfig.RestartPolicy.Name', docker: /^""$/, cetus: /"no"/, what: 'no restart policy is "no"', why: "as the Engine's own client says it"},
  {at: 'body.HostConfig.CgroupnsMode', docker: /host/, cetus: /private/, what: 'a container has a cgroup namespace of its own also on cgroup v1', why: 'what its node has is not known when it is created, and a container should not see the groups of others'},
  {at: /^body\.HostConfig\.KernelMemory(TCP)?$/, cetus: /absent/, what: 'kernel memory limits are not shown', why: VERSION_28},
  {at: 'body.HostConfig.MaskedPaths', cetus: /interrupts.*powercap/, what: 'two more paths are masked', why: VERSION_28},
  {at: 'body.HostConfig.Runtime', docker: /absent/, what: 'the runtime is said also where no HostConfig was sent', why: 'there is one'},
  {at: /GraphDriver|^body\.Driver$/, what: 'GraphDriver and Driver are `overlayfs`; Data names the node', why: 'there is one snapshotter, and the node is what an operator looks for'},
  {at: /\.(GwPriority|DNSNames)$/, docker: /absent/, what: 'endpoints have GwPriority and DNSNames', why: VERSION_28},
  {at: /^body\.(LogPath|HostsPath|ResolvConfPath|HostnamePath|NetworkSettings\.SandboxKey)$/, cetus: /^""$/, what: 'LogPath, HostsPath, ResolvConfPath, HostnamePath, SandboxKey are empty', why: OF_A_NODE},
  {at: /\.?(SizeRw|SizeRootFs|Size|VirtualSize|LayersSize)$/, what: 'sizes count blocks, empty containers their directories', why: "containerd's snapshotter measures so"},
  {at: 'body.Error', docker: /null/, cetus: /absent/, what: 'wait has no Error where there is none', why: VERSION_28},
  {at: /EnableIPv4$/, docker: /absent/, what: 'networks have EnableIPv4', why: VERSION_28},
  {at: 'header.content-type', docker: /absent/, cetus: /raw-stream|multiplexed-stream/, what: 'logs say their type: raw-stream, from 1.42 on multiplexed-stream', why: VERSION_28},
  {step: /^create: inspect on the host's network$/, at: /EndpointID$/, what: 'on the host\'s network there is no endpoint', why: 'nothing is attached'},
  {step: 'create: inspect with a port', at: /NetworkSettings\.Ports/, what: 'a port that is bound and not exposed is published', why: 'who binds it wants it; the client exposes what it binds'},
  {step: 'create: what it saw', at: 'body.stdout', what: 'resolv.conf has its name servers first', why: VERSION_28},
  {step: steps('create', 'a block weight of no device', 'a block weight too small', 'a block weight too high'), at: /./, what: 'block weights that are out of range, or that the kernel of the node does not have, are refused, where dockerd warns that the kernel has none', why: 'no silent option'},
  {step: 'networks: inspect it', at: /Aliases$/, what: 'until 1.44 the short id stands among the aliases also before the start', why: VERSION_28},
  {step: /^volumes: (create|inspect) without a name$/, at: 'body.Labels', what: 'volumes without a name are labelled so', why: VERSION_28},
  {step: /^exec: (a command that is not there|a directory that is not there): inspect$/, at: 'body.ExitCode', docker: /126/, cetus: /127/, what: 'an exec of a command that is not there ends with 127', why: VERSION_28},
  {step: /^(streams: its events|events: (all of them|filtered by .*))$/, at: /execDuration$/, what: 'the event `die` says how long it ran', why: VERSION_28},
  {step: /^system: version/, at: /^body\./, what: '/version says Cetus: Version is `28.3.0+cetus.X`, its components are its own', why: 'clients compare the version as semver; build metadata is ignored there'},
  {step: 'system: info', at: /^body\.(ID|DriverStatus|Plugins\.(Network|Log)|KernelMemory|KernelMemoryTCP|BridgeNfIptables|BridgeNfIp6tables|NFd|NGoroutines|OSVersion|RegistryConfig\..*|DockerRootDir|Name|ServerVersion|Runtimes\..*|LiveRestoreEnabled|ContainerdCommit\..*|RuncCommit\..*|InitCommit\..*|SecurityOptions.*|ProductLicense|CDISpecDirs|Swarm.*)$/,
    what: '/info speaks of a datacenter: its nodes, its drivers; fields that went with Engine 28 are gone, those that came are there', why: 'features of a datacenter; ' + VERSION_28},
  {step: /^system: what is used/, at: /^body\.(BuildCache|BuilderSize)$/, what: 'BuilderSize is left out where it is 0, BuildCache is a list', why: VERSION_28},

  // What is refused, or allowed, otherwise
  {step: /^system: (what is used of no type|join nobody|privileges of a plugin|pull a plugin|create a plugin of nothing)$/, at: /status|message/, what: 'plugins and swarm mode are refused as what a datacenter does not have; a type of usage that is none is refused', why: 'there is nothing to try; no silent option'},
  {step: /^system: (remove|update) a node$/, at: /status|message/, what: 'nodes are shown, so one that is not there is 404', why: 'features of a datacenter'},
  {step: 'containers: wait for no condition', at: /status|message/, what: 'a condition that is none is refused', why: VERSION_28},
  {step: 'containers: resize to a negative size', at: /status|message/, what: 'a negative size is refused', why: VERSION_28},
  {step: steps('create', 'no image'), at: /status|message|asked/, what: 'a container without an image is refused', why: 'no root file system could be made for it'},
  {step: 'create: something behind the JSON', at: /status|message/, what: 'what follows the JSON is refused', why: VERSION_28},
  {step: 'create: null', at: 'message', what: '`null` is no body', why: 'it says nothing'},
  {step: steps('create', 'a working directory that is a file', 'a directory that cannot be entered'), at: /./, what: 'a working directory that cannot be one is found at the start', why: 'create touches no node'},
  {step: steps('create', 'a host name that is too long', 'an address that is no MAC', 'a volume over everything', 'negative shares', 'a limit without a name', 'a soft limit above the hard', 'a log size that is none',
    'a log count that is none', 'a log count of 0', 'an IPC mode that is none', 'the IPC of no name', 'an address on the default network', 'an alias on the default network'), at: /status|message|asked/,
    what: 'values that dockerd 20.10 takes at create and refuses at each start: a host name of more than 63 letters, MACs, a volume at `/`, shares, ulimits, log sizes and counts, IPC modes, addresses and aliases on the default network', why: REFUSED_EARLY},
  {step: steps('create', 'a stop signal too high', 'a host name with a space', 'a port that is none', 'a port too high', 'a protocol that is none', 'a health check that is none', 'swap below no limit', 'a negative reservation',
    'a log count without a size', 'an option of log driver none', 'a PID mode that is none', 'a UTS mode that is none', 'a user mode that is none', 'a name server that is none', 'a host address that is none', 'a volume mount with options of tmpfs'), at: /status|message|asked/,
    what: 'values with which dockerd 20.10 runs the container as if they were not there, or writes them down unread: a signal that the kernel lacks, a space in a host name, ports and protocols that are none, a health check of no kind, swap below -1, a negative reservation, '
      + 'log options that do nothing, unknown PID, UTS and user modes, name servers and host addresses that are no addresses, tmpfs options of a volume', why: 'no silent option'},
  {step: steps('create', 'a device with no rights'), at: /status|message/, what: 'rights of a device other than r, w, m are refused at the start; dockerd drops them', why: 'no silent option'},
  {step: steps('create', 'a network that is none', 'the network of nobody', 'an endpoint of no network'), at: /status|message|asked/, what: 'a create that names a missing network or other container is 400; dockerd creates it and refuses the start', why: '`docker run` takes 404 for a missing image and pulls it first'},
  {step: steps('create', 'a device of no driver', 'a parent of the cgroup', 'a storage option', 'a storage option that is none', 'a runtime that is none', 'an isolation that is none'), at: /status|message|asked/, what: 'known options that are not supported are 400', why: 'no silent option'},
  {step: steps('create', 'a limit that is none'), at: /status|message/, what: 'a limit that the kernel does not have is named, before the runtime is asked', why: REFUSED_EARLY},
  {step: steps('create', 'a rate of no device'), at: 'message', what: 'a device that is not there is told in the words for devices', why: 'one mistake, one text'},

  {step: /^exec: a variable without a name/, at: /status|message|asked/, what: 'an exec with a variable without a name is refused', why: REFUSED_EARLY},
  {step: 'volumes: update what is not there', at: /status|message/, what: 'volumes can be updated where there is a swarm', why: 'an operation that came with 1.42'},
  {step: 'streams: events with an unknown filter', at: /status|message/, what: 'an unknown filter of events is refused', why: 'no silent option'},
  {step: /^images: load /, at: /status|message/, what: 'an archive that is none is 400; dockerd has begun to answer with 200 and tells it in the stream', why: 'clients that look at the status see it'},
  {step: 'images: tag without a name', at: 'message', what: 'a tag without a name: it is said what is missing', why: 'dockerd has no words for it'},
  {step: 'images: pull by digest', at: /\.id$/, what: 'a pull by digest is of the digest, not of the whole reference', why: VERSION_28},
  {step: steps('images', 'pull from nobody', 'search for nothing', 'import from nowhere', 'log in at nobody'), at: 'status', docker: /500/, cetus: /503/, what: 'a registry or an address that cannot be reached is 503', why: 'it may succeed later'},
  {step: 'images: search for nothing', at: 'message', docker: /lookup index\.docker\.io on /, cetus: /lookup index\.docker\.io/, what: 'what is told of an index that cannot be found has neither the search nor the name server in it', why: 'the server is that of a node; what follows a ? in an address may be a secret'},
  {step: 'images: import what is no archive', at: 'message', docker: /archive\/tar: /, cetus: /failed to register layer: .*archive\/tar: /, what: 'an import that is no archive is told as a pull tells of such a layer', why: 'one mistake, one text'},
  {step: /^images: pull (nothing|an empty name)$/, at: /status|message/, what: 'a pull of no name is 400', why: 'dockerd asks the network'},
  {step: 'images: pull another platform', at: /status|message/, what: 'a platform that no node has is refused', why: 'features of a datacenter'},
  {step: 'images: pull with credentials that are no JSON', at: /status|message/, what: 'credentials that cannot be read are refused', why: 'dockerd goes on as nobody, and says that what it may not see is not there'},
  {step: /^images: remove what was (pulled|imported)$/, at: 'body', what: 'rmi tells of the image, not of each of its layers', why: 'layers are shared by the accounts of a node'},
  {step: /^images: push( without credentials)?$/, at: /./, what: 'push takes no credentials for none, and sends the manifest that is stored', why: VERSION_28 + ' in the first; the digest of an image is its own'},
  {step: /^images: (inspect|history of) what was (committed|imported)$/, at: /body\.(Container|ContainerConfig\..*|DockerVersion|Config\.(Hostname|Image|Env\..*)|\d+\.(Id|Tags))$/, what: 'a committed or imported image names neither its container nor the engine, its own variables come first, its history names no images', why: 'these fields went with 1.45'},

  // Networks
  {step: steps('networks', 'no name', 'a name with a slash', 'a subnet that is none', 'a subnet of 99 bits', 'a gateway elsewhere', 'a gateway that is none', 'a range elsewhere', 'a range that is none', 'a gateway without a subnet',
    'a range without a subnet', 'two subnets', 'an auxiliary address elsewhere'), at: /status|message|asked/, what: 'names, subnets, gateways and ranges of networks are checked before anything is made, each with a text that names it', why: VERSION_28},
  {step: steps('networks', 'a scope that is none', "the swarm's scope", 'an overlay', 'an ingress', 'a config from what is not there', 'inspect with a scope that is none', "inspect with the swarm's scope"), at: /status|message/, what: 'scopes, overlays and configurations of swarm mode are refused', why: 'every network reaches every node'},
  {step: steps('networks', 'connect with an address elsewhere', 'connect with an address that is none', 'start with an address that is taken'), at: /status|message/, what: 'an address that cannot be had is refused when it is asked for', why: REFUSED_EARLY},
  {step: 'networks: connect without a container', at: 'message', what: 'a connect without a container: the field is named', why: 'it is missing'},
  {step: 'networks: list what hangs perhaps', at: 'message', what: 'a filter that takes a truth has the same words everywhere', why: VERSION_28},
  {step: /^(archive|events): get /, at: /^body\.\d+\.mode$/, what: 'the mode of an entry of an archive holds permissions only', why: 'its type has a field of its own'},
  {step: 'archive: head of the root', at: 'header.x-docker-container-path-stat', what: 'the size of the root directory of a container that does not run is that of a layer in memory', why: 'its files are looked at through one, so that nothing of the container changes (lib/agent/rootfs)'},
  {step: /^archive: get (a file as a directory|below a file)$/, at: 'message', rewrite: [[/^lstat \S+\/merged\//, 'lstat /']], what: 'paths in errors are those of the container', why: VERSION_28},
  {step: /^archive: put /, at: 'message', rewrite: [[/^Error processing tar file\(exit status 1\): /, '']], what: 'what is wrong with an archive has no "Error processing tar file" before it', why: VERSION_28},
  {step: /^archive: (get|put to) no path$/, at: 'message', what: '`path` and what is wrong with it are two words', why: 'a slip of the pen of dockerd'},

];

/** And on a fleet (CETUS_FLEET), which one machine cannot be like. */
export const OF_A_FLEET: readonly Divergence[] = [
  {step: 'system: info', at: /^body\.(NCPU|MemTotal)$/, what: 'processors and memory are those of all nodes', why: 'a datacenter answers as one host'},
  {step: 'images: import', at: /^body\.0\.(status|id)$/, cetus: /Copying to|<id>/, what: 'the copy to a second node is shown', why: 'what exists only inside is on two nodes before the call answers'},
  {step: /^volumes: /, at: /\.Status$/, docker: /absent/, cetus: /"node"/, what: 'a volume says on which node it is', why: 'its containers have to be there'},
];

export function explains({step, at, docker, cetus, rewrite}: Divergence, d: Difference): boolean {
  const matches = (pattern: string | RegExp | undefined, text: string): boolean => pattern === undefined || (typeof pattern === 'string' ? pattern === text : pattern.test(text));
  if (!matches(step, `${d.noun}: ${d.step}`) || !matches(at, d.at) || !matches(docker, JSON.stringify(d.docker) ?? '') || !matches(cetus, JSON.stringify(d.cetus) ?? '')) return false;
  return !rewrite || (typeof d.docker === 'string' && rewritten(d.docker, rewrite) === d.cetus);
}

/** "\\l" in a replacement: what was found, in small letters. */
function rewritten(text: string, rules: [RegExp, string][]): string {
  return rules.reduce((t, [pattern, to]) => (to.includes('\\l') ? t.replace(pattern, (found) => found.toLowerCase()) : t.replace(pattern, to)), text);
}
