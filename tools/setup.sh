#!/usr/bin/env bash
# Installs what is missing from the distribution, for one of: run, fleet, busybox, test, bench, bench-db, bench-network, cluster. Quiet and quick where nothing is missing.
# For tests and benchmark, not for a first busybox image, it also makes the images of real services, once per machine (tools/service-images).
# Refuses loudly where it cannot help: another distribution, or no root.
set -euo pipefail

what=${1:?usage: tools/setup.sh run|fleet|busybox|test|bench|bench-db|bench-network|cluster}
if [ "$(id -u)" != 0 ]; then
  echo "setup: make $what wants root: it makes namespaces, bridges and mounts" >&2
  exit 1
fi
declare -A package_of=(
  [dockerd]=docker.io [setpriv]=util-linux [containerd]=containerd [tini]=tini [runc]=runc [ip]=iproute2 [nft]=nftables [ps]=procps [iptables]=iptables [conntrack]=conntrack [zstd]=zstd [xz]=xz-utils [bzip2]=bzip2 [flock]=util-linux
)
[ "$what" != busybox ] || package_of=([busybox]=busybox-static)
if [ "$what" = test ] || [ "$what" = bench ]; then
  package_of+=([docker-registry]=docker-registry [busybox]=busybox-static [script]=bsdutils [openssl]=openssl [curl]=curl
    [docker-compose]=docker-compose [debootstrap]=debootstrap)
fi

[ "$what" != fleet ] || package_of+=([nsenter]=util-linux)
[ "$what" != bench-network ] || package_of+=([nsenter]=util-linux [chrt]=util-linux [taskset]=util-linux [busybox]=busybox-static [docker]=docker.io [iperf3]=iperf3 [perl]=perl-base)

# What is no program on the PATH is known by a file: ZooKeeper is jars, and Debian keeps Postgres' server out of the PATH.
declare -A package_with=()
if [ "$what" = test ] || [ "$what" = bench ] || [ "$what" = bench-db ] || [ "$what" = cluster ]; then
  package_of+=([java]=default-jre-headless)
  package_with=(['/usr/share/java/zookeeper.jar']=libzookeeper-java ['/usr/lib/postgresql/*/bin/postgres']=postgresql)
fi
if [ "$what" = bench-db ]; then
  package_of+=([busybox]=busybox-static [docker]=docker.io [patroni]=patroni)
  package_with+=(['/usr/lib/python3/dist-packages/kazoo/__init__.py']=python3-kazoo)
fi

missing=()
for pattern in "${!package_with[@]}"; do
  compgen -G "$pattern" >/dev/null || missing+=("${package_with[$pattern]}")
done
for program in "${!package_of[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null 2>&1 || missing+=("${package_of[$program]}")
done
images() {
  [ "$what" != test ] && [ "$what" != bench ] || "$(dirname "$0")/service-images/make.sh" >/dev/null
}
if [ ${#missing[@]} -eq 0 ]; then
  images
  exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
  echo "setup: missing: ${missing[*]}; this machine has no apt-get, install them by hand" >&2
  exit 1
fi

# A package that starts a service of its own (containerd, dockerd, a registry) must not do so behind the person's back:
# policy-rc.d is the distribution's way to say that, put back as it was afterwards.
policy=/usr/sbin/policy-rc.d
no_main=/etc/postgresql-common/createcluster.d/cetus.conf
ours=()
trap '[ ${#ours[@]} -eq 0 ] || rm -f "${ours[@]}"' EXIT
if [ ! -e "$policy" ]; then
  ours+=("$policy")
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
# Postgres' package makes a database of its own, which nobody asked for.
if [[ " ${missing[*]} " == *" postgresql "* ]]; then
  ours+=("$no_main")
  mkdir -p "$(dirname "$no_main")"
  echo 'create_main_cluster = false' >"$no_main"
fi
echo "setup: installing ${missing[*]} ..."
log=$(mktemp)
if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  cat "$log" >&2
  echo "setup: apt-get could not install ${missing[*]} (see above)" >&2
  exit 1
fi
rm -f "$log"
echo "setup: installed"
images
