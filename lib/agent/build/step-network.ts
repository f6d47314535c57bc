/**
 * The network of a build's steps. What dockerd does for each step on a bridge of its own (a namespace, a pair of interfaces, their removal) takes half
 * of a step's time; so its steps run "on the host's network", and runc, as the engine finds it, gives each that asks for this the namespace of the
 * account's builds instead, which is made once. The node's own network is had only where a build asks for it by name and may; the request is told
 * to runc by an entry of /etc/hosts. Pure, and two files.
 */
import fs from 'node:fs';
import {join} from 'node:path';

const ON_THE_NODE = 'network-of-the-node.cetus.internal';
const OF_A_BUILD = 'build.cetus.internal';

/** The client's query as the engine gets it. */
export function withStepNetwork(request: string): string {
  const [path, text = ''] = request.split('?', 2) as [string, string?];
  if (path !== '/build') return request;
  const query = new URLSearchParams(text);
  const mode = query.get('networkmode') ?? '';
  if (mode === 'none') return request;
  if (mode === 'host') query.append('extrahosts', `${ON_THE_NODE}:127.0.0.1`);
  // The classic builder gives steps on the host's network the host's own /etc/hosts, unless there is something to add to one.
  else if (query.get('version') !== '2') query.append('extrahosts', `${OF_A_BUILD}:127.0.0.1`);
  query.set('networkmode', 'host');
  return `/build?${query.toString()}`;
}

/** `netns`: the steps' own; `nodeNetns`: what dockerd calls the host's. BuildKit asks for the latter by naming none. */
export interface RuncSettings { runc: string; netns: string; nodeNetns: string; nodeNetworkAllowed: boolean }

/** A directory for the engine's PATH. Nothing that a build writes can look like what is looked for: within JSON's strings quotes are escaped. */
export function placeRunc(directory: string, {runc, netns, nodeNetns, nodeNetworkAllowed}: RuncSettings): void {
  fs.mkdirSync(directory, {recursive: true, mode: 0o755});
  const file = join(directory, 'runc');
  fs.writeFileSync(`${file}.new`, `#!/bin/sh
case " $* " in *" create "*|*" run "*)
  next=
  for word; do
    if [ "$next" ]; then bundle=$word; next=; fi
    case $word in --bundle|-b) next=1;; --bundle=*) bundle=\${word#--bundle=};; esac
  done
  config=$bundle/config.json
  if grep -q '"type":"network","path":"${nodeNetns}"' "$config"; then change='s#"type":"network","path":"${nodeNetns}"#"type":"network","path":"${netns}"#'
  elif ! grep -q '"type":"network"' "$config"; then change='s#"namespaces":\\[#&{"type":"network","path":"${netns}"},#'
  else change=; fi
  hosts=$(sed -n 's#.*"destination":"/etc/hosts","type":"bind","source":"\\([^"]*\\)".*#\\1#p' "$config")
  if ${nodeNetworkAllowed ? `[ "$hosts" ] && grep -q '[[:space:]]${ON_THE_NODE}' "$hosts"` : 'false'}; then change=; fi
  if [ "$change" ]; then
    sed "$change" "$config" >"$config.new" && mv "$config.new" "$config" && grep -q '"type":"network","path":"${netns}"' "$config" || exit 1
  fi;;
esac
exec ${runc} "$@"
`, {mode: 0o755});
  fs.renameSync(`${file}.new`, file);
}
