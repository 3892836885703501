# Herald's image: the binary on a slim base, as a user without rights.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
# The crypto library is C and assembler, which the slim image's compiler builds. The allocator wants make, too.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin herald && cp target/release/herald /herald

FROM debian:bookworm-slim
# The CA certificates with which NATS servers are verified.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
USER 65532:65532
COPY --from=build /herald /usr/local/bin/herald
# Inside a container the ports are published by whoever runs it.
ENV HERALD_SERVER__LISTEN=0.0.0.0:8080 HERALD_SERVER__ADMIN_LISTEN=0.0.0.0:9090
EXPOSE 8080 9090
# SIGTERM begins the drain; give it server.drain, server.drain_delay and 28 s (docker stop -t 40).
STOPSIGNAL SIGTERM
# Whether the process lives. It reads the settings from the environment as `serve` does; with a file, add --config.
# Where a container is to be ready, and not only to live, before others start: herald health --ready.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["/usr/local/bin/herald", "health"]
ENTRYPOINT ["/usr/local/bin/herald"]
CMD ["serve"]
