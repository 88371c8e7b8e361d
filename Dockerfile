# One static binary on an empty file system. Build: `docker build -t taskcast .`, or with podman or Buildah.
# Run: `docker run --rm -p 6161:6161 taskcast demo --listen 0.0.0.0:6161`.
#
# Nothing here names a processor: the build stage makes a binary for the one that it runs on, so an image for several is
# `docker buildx build --platform linux/amd64,linux/arm64 .` Times and paths of the machine are kept out of binary
# and image, with `--build-arg SOURCE_DATE_EPOCH=…` (BuildKit) or `--timestamp …` (podman); `tests/image --again` compares two builds.

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
# +crt-static: without it the image would need a C library; Debian's, of which the C library is the least, weighs ten times
# the binary. glibc rather than musl, for its memcpy and its resolver. Paths are told shorter, and the same on every machine.
ENV RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/src=/taskcast --remap-path-prefix=/usr/local/cargo=/cargo"
# What is depended on is compiled in a layer of its own, which holds until Cargo.toml or Cargo.lock change. With a target
# named, the flags above are not those of build scripts and macros, which are no static programs. Benchmarks and tests, which
# are not here, are taken out of the manifest: cargo wants the files of all that it names.
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^\[\[/,/^$/d' Cargo.toml \
    && mkdir src && echo 'fn main() {}' | tee src/main.rs build.rs >/dev/null && touch src/lib.rs \
    && rustc -vV | sed -n 's/^host: //p' >/target \
    && cargo build --release --locked --bin taskcast --target "$(cat /target)"
COPY proto ./proto
COPY clients/js/dist/client.js ./clients/js/dist/client.js
COPY build.rs ./
COPY src ./src
# Files keep the times of where they were copied from; cargo must not take them for older than what was built in their place.
RUN touch build.rs src/lib.rs src/main.rs \
    && cargo build --release --locked --offline --bin taskcast --target "$(cat /target)"
# All of the image. The bundle is for rediss:// and amqps:// with public certificates; nsswitch.conf has names looked up in
# /etc/hosts before DNS, also when a runtime brings no such file; the bill of materials names what is in the binary, where scanners look for one.
COPY image/sbom ./image/sbom
COPY LICENSE-MIT LICENSE-APACHE ./
ARG SOURCE_DATE_EPOCH=0
RUN mkdir -p /image/etc/ssl/certs /image/usr/local/bin /image/usr/share/doc/taskcast && cd /image \
    && cp "/src/target/$(cat /target)/release/taskcast" usr/local/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ \
    && echo 'hosts: files dns' >etc/nsswitch.conf \
    && echo 'taskcast:x:65532:65532:taskcast:/nonexistent:/sbin/nologin' >etc/passwd \
    && echo 'taskcast:x:65532:' >etc/group \
    && cp /src/LICENSE-MIT /src/LICENSE-APACHE usr/share/doc/taskcast/ \
    && (cd /src && image/sbom) >usr/share/doc/taskcast/taskcast.cdx.json \
    && chmod -R u=rwX,go=rX /image && find /image -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch
COPY --from=build /image /
# A number, so that Kubernetes can check `runAsNonRoot`.
USER 65532:65532
# 6161: clients. 6162: operators (/livez, /readyz, /metrics); keep it inside.
EXPOSE 6161 6162
# Kubernetes ignores this and uses its own probes.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/usr/local/bin/taskcast", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/taskcast"]
CMD ["serve"]
# Last, so that another revision leaves all layers as they are.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="taskcast" \
      org.opencontainers.image.description="Task-progress notifications: workers publish to Redis or RabbitMQ, browsers watch over WebSockets, nothing is lost." \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
