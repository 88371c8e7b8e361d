# One binary on a small Debian. Build: `docker build -t taskcast .` (BuildKit or Buildah, for the cache mounts).
# Run: `docker run --rm -p 6161:6161 taskcast demo --listen 0.0.0.0:6161`.

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto ./proto
COPY src ./src
COPY clients/js/dist/client.js ./clients/js/dist/client.js
# The caches keep the registry and the compiled dependencies between builds; a cache is not part of the layer, so the
# binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin taskcast && cp target/release/taskcast /taskcast

FROM docker.io/library/debian:bookworm-slim
# For rediss:// and amqps:// with public certificates. The build stage has the bundle already: nothing is downloaded.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /taskcast /usr/local/bin/taskcast
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/taskcast/
# A number, so that Kubernetes can check `runAsNonRoot`; it needs no entry in /etc/passwd.
USER 65532:65532
# 6161: clients. 6162: operators (/livez, /readyz, /metrics); keep it inside.
EXPOSE 6161 6162
# Kubernetes ignores this and uses its own probes.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/usr/local/bin/taskcast", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/taskcast"]
CMD ["serve"]
