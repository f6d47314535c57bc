#!/usr/bin/env bash
# Images of real services for the tests and the benchmark, made from the distribution's packages: no registry is asked.
#   tools/service-images/make.sh      prints the path of an archive for `docker load -i`
# In it: service/nginx:1, service/postgres:15, service/redis:7, with entrypoints like those people know from the official images, and
# service/reaper:1, which speaks the protocol of Testcontainers' Ryuk. All four share one root file system (debootstrap's minbase and the packages).
# Made once per machine, under a lock, and put in place whole; kept in $CETUS_TEST_CACHE by a hash of this directory. About a minute; then none.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${CETUS_TEST_CACHE:-/var/cache/cetus-test}
suite=bookworm
architecture=$(dpkg --print-architecture)
recipe=$(cd "$here" && { echo "$suite $architecture"; sha256sum -- *; } | sha256sum | cut -c1-16)
archive=$cache/$recipe/services.tar
[ -e "$archive" ] && { echo "$archive"; exit 0; }

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -e "$archive" ] && { echo "$archive"; exit 0; }
command -v debootstrap >/dev/null || { echo "service images: debootstrap is not installed (tools/setup.sh test)" >&2; exit 1; }
echo "service images: making them once for this machine, about a minute ..." >&2

work=$(mktemp -d "$cache/making.XXXXXX")
tidy() { cd /; mountpoint -q "$work" && { umount "$work" || umount -l "$work"; }; rm -rf "$work"; }
trap tidy EXIT
# dpkg writes through to the disk after each package: 20 of 72 seconds, for files that are thrown away.
if [ "$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)" -gt $((4 << 20)) ]; then mount -t tmpfs -o size=2g,mode=711 cetus-test "$work" || true; fi

root=$work/root
mirror=${CETUS_TEST_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Release: $suite" 2>/dev/null | head -1)}
if ! debootstrap --variant=minbase --include=nginx-light,libnginx-mod-stream,postgresql-15,redis-server "$suite" "$root" "${mirror:-http://deb.debian.org/debian}" >"$work/log" 2>&1; then
  tail -20 "$work/log" "$root/debootstrap/debootstrap.log" >&2 2>/dev/null || true
  echo "service images: debootstrap failed (see above)" >&2
  exit 1
fi

# What no service of these needs: the cluster that the package made, the just-in-time compiler of Postgres (110 MB), documentation, translations, the package manager's own.
rm -rf "$root"/var/lib/postgresql/* "$root"/usr/lib/postgresql/15/lib/{bitcode,llvmjit*} "$root"/usr/lib/*-linux-gnu/{libLLVM*,libz3*,gconv,perl,krb5} "$root"/usr/lib/{llvm-14,git-core,systemd} \
  "$root"/usr/share/{doc,man,info,locale,i18n,lintian,bug,perl,perl5,bash-completion,common-licenses,postgresql/15/man,systemd} \
  "$root"/var/cache/* "$root"/var/lib/{apt,dpkg,systemd,ucf}/* "$root"/var/log/* "$root"/var/backups/* "$root"/etc/{apt,systemd} "$root"/dev/* "$root"/run/* "$root"/tmp/* "$root"/debootstrap
# The distribution's names are a wrapper in Perl that chooses among clusters; there is one.
for program in "$root"/usr/lib/postgresql/15/bin/*; do ln -sf "../lib/postgresql/15/bin/${program##*/}" "$root/usr/bin/"; done
mkdir -p "$root"/var/log/nginx "$root"/docker-entrypoint-initdb.d "$root"/data "$root"/var/lib/postgresql/data "$root"/run/postgresql
ln -s /dev/stdout "$root/var/log/nginx/access.log"
ln -s /dev/stderr "$root/var/log/nginx/error.log"
chroot "$root" chown redis:redis /data
chroot "$root" chown -R postgres:postgres /var/lib/postgresql /run/postgresql
chmod 700 "$root/var/lib/postgresql/data"
: >"$root/etc/machine-id"
: >"$root/etc/resolv.conf"
: >"$root/etc/hostname"
install -m 755 "$here"/postgres-entrypoint "$here"/redis-entrypoint "$here"/reaper "$root/usr/local/bin/"
install -m 644 "$here/nginx.conf" "$root/etc/nginx/nginx.conf"
install -m 644 -D "$here/nginx-default.conf" "$root/etc/nginx/conf.d/default.conf"

mkdir "$work/archive"
cd "$work/archive"
tar --sort=name --numeric-owner --mtime=@0 --format=gnu -C "$root" -cf layer.tar .
layer=$(sha256sum layer.tar | cut -d' ' -f1)
manifest=
image() { # name, the config's fields
  local config
  config="{\"architecture\":\"$architecture\",\"os\":\"linux\",\"created\":\"2026-01-01T00:00:00Z\",\"config\":{\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"$2],$3},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$layer\"]},\"history\":[{\"created\":\"2026-01-01T00:00:00Z\",\"created_by\":\"debootstrap $suite nginx postgresql redis-server\"}]}"
  local file
  file=$(printf %s "$config" | sha256sum | cut -d' ' -f1).json
  printf %s "$config" >"$file"
  manifest+="${manifest:+,}{\"Config\":\"$file\",\"RepoTags\":[\"$1\"],\"Layers\":[\"layer.tar\"]}"
}
image service/nginx:1 '' '"Cmd":["nginx","-g","daemon off;"],"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT"'
image service/postgres:15 ',"PGDATA=/var/lib/postgresql/data","LANG=C.UTF-8"' \
  '"Entrypoint":["postgres-entrypoint"],"Cmd":["postgres"],"ExposedPorts":{"5432/tcp":{}},"Volumes":{"/var/lib/postgresql/data":{}},"StopSignal":"SIGINT"'
image service/redis:7 '' '"Entrypoint":["redis-entrypoint"],"Cmd":["redis-server"],"ExposedPorts":{"6379/tcp":{}},"Volumes":{"/data":{}},"WorkingDir":"/data"'
image service/reaper:1 '' '"Cmd":["reaper"],"ExposedPorts":{"8080/tcp":{}}'
printf '[%s]' "$manifest" >manifest.json
mkdir -p "$cache/$recipe"
tar -cf "$cache/$recipe/.services.$$" -- *
mv "$cache/$recipe/.services.$$" "$archive"
# Other recipes' archives that nobody has read for a month.
find "$cache" -mindepth 2 -maxdepth 2 -name services.tar -atime +30 ! -path "$archive" -delete
echo "$archive"
