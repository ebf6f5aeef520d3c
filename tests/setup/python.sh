#!/bin/sh
# A Python of our own under target/, with the MQTT client library that the tests talk to the broker with.
set -eu
cd "$(dirname "$0")/../.."
wanted="paho-mqtt==2.1.0"
python=target/python/bin/python3
if [ "$(cat target/python/installed 2>/dev/null)" != "$wanted" ]; then
    rm -rf target/python
    mkdir -p target
    python3 -m venv target/python
    "$python" -m pip install -q --disable-pip-version-check "$wanted"
    echo "$wanted" >target/python/installed
fi
