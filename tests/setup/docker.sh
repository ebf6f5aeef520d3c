#!/bin/sh
# Starts a Docker daemon if none answers. Fails with one line if there can be none.
set -eu
PATH=$PATH:/usr/sbin:/sbin

docker info >/dev/null 2>&1 && exit 0
if ! command -v dockerd >/dev/null 2>&1; then
    echo "set-up: no Docker daemon answers and dockerd is not installed" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "set-up: no Docker daemon answers and only root can start one" >&2
    exit 1
fi
if [ -d /run/systemd/system ]; then
    systemctl start docker
else
    setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
fi
for _ in $(seq 120); do
    docker info >/dev/null 2>&1 && exit 0
    sleep 0.5
done
echo "set-up: dockerd does not answer after 60 s; its last lines:" >&2
tail -n 20 /var/log/dockerd.log >&2 || true
exit 1
