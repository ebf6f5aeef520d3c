#!/bin/sh
# Makes sure that the image the Dockerfile builds upon is here: pulls it, or, on a machine that reaches no image registry,
# makes a stand-in under the same name with debootstrap and this machine's Rust toolchain. A stand-in carries the label
# darner.stand-in and never leaves the machine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dockerfile=$here/../../Dockerfile
PATH=$PATH:/usr/sbin:/sbin

rust_image=$(sed -n 's/^FROM \(rust:[^ ]*\).*/\1/p' "$dockerfile" | head -n 1)

docker image inspect "$rust_image" >/dev/null 2>&1 && exit 0
timeout 900 docker pull -q "$rust_image" 2>/dev/null && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "set-up: $rust_image cannot be pulled, and only root can make a stand-in for it" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "set-up: no image registry answers; making a stand-in for $rust_image (a few minutes, once per machine)"

root=$work/root
debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev,make,pkg-config bookworm "$root" >"$work/log" 2>&1 ||
    { tail -n 30 "$work/log" >&2; exit 1; }
# Whatever lets apt and cargo reach their servers here is needed inside `docker build` too.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
if [ -e /etc/apt/sources.list.d/debian.sources ]; then
    cp /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/"
    rm -f "$root/etc/apt/sources.list"
fi
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

toolchain=/usr/local/rustup/toolchains/$(rustc --version | cut -d' ' -f2)
mkdir -p "$root$toolchain" "$root/usr/local/cargo/bin"
tar -C "$(rustc --print sysroot)" --exclude=./share --exclude=./lib/rustlib/src --exclude='./lib/rustlib/*/share' \
    --exclude='./bin/rust-analyzer' --exclude='./bin/miri' --exclude='./bin/cargo-miri' --exclude='./bin/*driver' -cf - . | tar -C "$root$toolchain" -xf -
for tool in cargo rustc rustdoc; do
    ln -s "$toolchain/bin/$tool" "$root/usr/local/cargo/bin/$tool"
done

tar -C "$root" -cf - . | docker import \
    --change 'LABEL darner.stand-in=1' \
    --change 'ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt' \
    --change 'CMD ["bash"]' \
    - "$rust_image" >/dev/null
echo "set-up: $rust_image is ready"
