# The project's images, for people with a builder and a registry. One target a program:
#
#   docker build --target flowctl-operator --tag registry.example.com/flowctl-operator:0.1.0 .
#
# The same static programs as `cargo xtask images` writes without a builder: nothing else is in an image, and nothing
# in it runs as root.

FROM rust:1.95.0-bookworm AS build
# The toolchain of the image is the pinned one; rust-toolchain.toml would only add rustfmt and clippy to it.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
# The cache mounts keep downloads and object files between builds; the programs are copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    set -eu; \
    target="$(uname -m)-unknown-linux-gnu"; \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile image --target "$target" \
        --package flowctl-operator --package flowctl --package flowctl-runner --package ttp-processor --package analytics-sink --bins; \
    mkdir /programs; \
    for program in flowctl-operator flowctl flowctl-runner ttp-processor analytics-sink; do \
        cp "target/$target/image/$program" /programs/; \
    done

FROM scratch AS flowctl-operator
COPY --from=build /programs/flowctl-operator /flowctl-operator
USER 65532:65532
ENTRYPOINT ["/flowctl-operator"]

FROM scratch AS flowctl
COPY --from=build /programs/flowctl /flowctl
USER 65532:65532
ENTRYPOINT ["/flowctl"]

FROM scratch AS flowctl-runner
COPY --from=build /programs/flowctl-runner /flowctl-runner
USER 65532:65532
ENTRYPOINT ["/flowctl-runner"]

FROM scratch AS ttp-processor
COPY --from=build /programs/ttp-processor /ttp-processor
USER 65532:65532
ENTRYPOINT ["/ttp-processor"]

FROM scratch AS analytics-sink
COPY --from=build /programs/analytics-sink /analytics-sink
USER 65532:65532
ENTRYPOINT ["/analytics-sink"]
