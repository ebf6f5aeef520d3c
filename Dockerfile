# One static binary, a static busybox for the shell that people expect, and nothing else.
FROM rust:1.95-slim-bookworm AS build

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends busybox-static tzdata \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /build
# The flag is for the binary and not for the macros that the compiler loads, hence the explicit target.
ENV RUSTFLAGS="-C target-feature=+crt-static"

# The dependencies alone first, so that a change of the code does not compile them again.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src entrypoint \
    && touch src/lib.rs \
    && echo 'fn main() {}' > entrypoint/main.rs \
    && cargo build --release --locked --target host-tuple \
    && rm -r src entrypoint

COPY . .
RUN touch src/lib.rs entrypoint/main.rs && cargo build --release --locked --target host-tuple

# The final tree. A name that mosquitto's or IOTstack's users type is a link to the one binary.
RUN set -e; \
    mkdir -p /image/bin /image/usr/bin /image/usr/sbin /image/usr/local/bin /image/usr/share /image/etc /image/run /image/var/empty /image/tmp; \
    chmod 1777 /image/tmp; \
    cp target/*/release/darner /image/usr/sbin/darner; \
    for name in usr/sbin/mosquitto usr/bin/mosquitto_passwd usr/bin/mosquitto_pub usr/bin/mosquitto_sub \
                usr/local/bin/iotstack_healthcheck.sh docker-entrypoint.sh restart.sh; do \
        ln -s /usr/sbin/darner /image/$name; \
    done; \
    cp /bin/busybox /image/bin/busybox; \
    for name in sh ash cat ls date tar sleep kill ps id env echo printf grep head tail wc sed awk cut sort find stat touch mkdir rm \
                rmdir mv cp ln chmod chown du df test true false which whoami hostname uname nc ping vi less more gzip gunzip \
                md5sum sha256sum top free netstat xargs tr tee timeout readlink realpath; do \
        ln -s busybox /image/bin/$name; \
    done; \
    printf '#!/bin/sh\nexec /bin/sh "$@"\n' > /image/bin/bash; \
    chmod 755 /image/bin/bash; \
    printf 'root:x:0:0:root:/:/bin/sh\nmosquitto:x:1883:1883:mosquitto:/var/empty:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n' > /image/etc/passwd; \
    printf 'root:x:0:\nmosquitto:x:1883:\nnogroup:x:65534:\n' > /image/etc/group; \
    printf 'listener 1883\nallow_anonymous true\n' > /image/mosquitto-no-auth.conf; \
    cp -a /usr/share/zoneinfo /image/usr/share/zoneinfo; \
    cd /image/usr/share/zoneinfo; rm -rf right posix tzdata.zi *.tab *.list leapseconds; cd - >/dev/null; \
    mkdir -p /volumes/config /volumes/data /volumes/log /volumes/pwfile; \
    mkdir -m 0775 /image/myuser

FROM scratch
COPY --from=build /image/ /
COPY --from=build --chown=1883:1883 /volumes/ /mosquitto/

ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LABEL org.opencontainers.image.title="darner" \
      org.opencontainers.image.description="A drop-in replacement for the Eclipse Mosquitto container" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      com.github.SensorsIot.IOTstack.Dockerfile.build-args="none" \
      com.github.SensorsIot.IOTstack.Dockerfile.based-on="scratch"

VOLUME ["/mosquitto/config", "/mosquitto/pwfile", "/mosquitto/data", "/mosquitto/log"]
EXPOSE 1883
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30s --interval=30s --timeout=10s --retries=3 CMD ["/usr/sbin/darner", "healthcheck"]
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
