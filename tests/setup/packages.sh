#!/bin/sh
# Installs what `make run` or `make test` needs and the machine lacks: `packages.sh run|test|fuzz`.
# As root it installs Debian packages; otherwise it only says which ones are missing.
set -eu
what=${1:?run, test or fuzz}

# command:package, the command proving that the package is there
needed="cc:gcc"
if [ "$what" = test ]; then
    needed="$needed dockerd:docker.io docker:docker.io docker-compose:docker-compose iptables:iptables debootstrap:debootstrap \
mosquitto:mosquitto mosquitto_pub:mosquitto-clients pebble:pebble pebble-challtestsrv:pebble setpriv:util-linux nsenter:util-linux ps:procps strace:strace chromium:chromium node:nodejs npm:npm openssl:openssl chattr:e2fsprogs mkfs.ext4:e2fsprogs \
faketime:faketime"
fi
[ "$what" != fuzz ] || needed="$needed g++:g++"
PATH=$PATH:/usr/sbin:/sbin

missing=
for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
if [ "$what" = test ]; then
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
    /usr/bin/python3 -c 'import yaml' >/dev/null 2>&1 || missing="$missing python3-yaml"
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "set-up: this is no Debian machine; please install what provides:$missing" >&2
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "set-up: not root, so please run: sudo apt-get install$missing" >&2
    exit 0
fi

# Only the programs are wanted: a mosquitto service on port 1883 would be in the way.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
echo "set-up: installing$missing"
apt-get update -qq
# shellcheck disable=SC2086 # a list of words on purpose
apt-get install -y -qq --no-install-recommends $missing >/dev/null
case "$missing" in
*" mosquitto "* | *" mosquitto")
    if [ -d /run/systemd/system ]; then systemctl disable -q mosquitto || true; fi
    ;;
esac
