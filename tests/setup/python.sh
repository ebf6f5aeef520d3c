#!/bin/sh
# A Python with pip of our own under target/: Debian's comes without, and wants nothing installed into it.
set -eu
cd "$(dirname "$0")/../.."
target/python/bin/python3 -m pip --version >/dev/null 2>&1 && exit 0
rm -rf target/python
mkdir -p target
python3 -m venv target/python
