# The image: one static program under several names, and the authorities of https. For both architectures:
#
#   make image IMAGE=REPOSITORY:TAG PUSH=1 RUST_DIGEST=sha256:...
#
# docs/releasing.md says where the digest comes from. Each architecture is compiled on the machine's own, so that none is emulated. No line names
# another frontend than the one that the builder brings, for that would be one more image without a digest.

# As in rust-toolchain.toml; a test compares them.
ARG RUST=1.95.0
# Digest of the base image's index. It has no default: without one the build ends here.
ARG RUST_DIGEST
# The bill of materials lists Cargo.lock too, for a stripped program does not tell its crates.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
FROM --platform=$BUILDPLATFORM docker.io/library/rust:${RUST}-bookworm@${RUST_DIGEST} AS build
ARG RUST
# Otherwise rust-toolchain.toml would have rustfmt and clippy fetched.
ENV RUSTUP_TOOLCHAIN=$RUST
ARG TARGETARCH

RUN <<'END'
set -eu
case "$TARGETARCH" in
amd64) machine=x86_64 package=x86-64 ;;
arm64) machine=aarch64 package=aarch64 ;;
*) echo "no image for the architecture $TARGETARCH" >&2; exit 1 ;;
esac
echo "$machine" > /machine
rustup target add "$machine-unknown-linux-gnu"
# The cryptography and the allocator are C.
if [ "$(uname -m)" != "$machine" ]; then
    apt-get update
    apt-get install --yes --no-install-recommends "gcc-$package-linux-gnu" "libc6-dev-$TARGETARCH-cross"
    rm -rf /var/lib/apt/lists/*
fi
END

WORKDIR /pointsman
COPY . .
# Label of llm_d_epp_info.
ARG COMMIT=""
# Since glibc 2.34 a static program resolves names by itself, so it needs no files of a distribution.
RUN --mount=type=cache,id=pointsman-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=pointsman-target-$TARGETARCH,target=/pointsman/target,sharing=locked <<'END'
set -eu
machine=$(cat /machine)
target=$machine-unknown-linux-gnu
if [ "$(uname -m)" != "$machine" ]; then
    export "CC_$(echo "$target" | tr - _)=$machine-linux-gnu-gcc"
    export "CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_LINKER=$machine-linux-gnu-gcc"
fi
export RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols
POINTSMAN_COMMIT=$COMMIT cargo build --release --locked --target "$target"
install -D "target/$target/release/pointsman" /image/pointsman
size=$(stat -c %s /image/pointsman)
[ "$size" -le 25000000 ] || { echo "the program has $size bytes, more than the 25 MB it may have" >&2; exit 1; }
# What manifests of other pickers call: the picker and the sidecar by their paths in their images, and what hooks before the end need. The program
# tells the sidecar, `sleep` and `sh` by their names. A test runs these names.
for name in epp app/epp manager app/pd-sidecar app/llm-d-routing-sidecar bin/sleep bin/sh; do
    mkdir -p "$(dirname "/image/$name")"
    ln -s /pointsman "/image/$name"
done
install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt
END

FROM scratch
ARG COMMIT=""
LABEL org.opencontainers.image.title="pointsman" \
      org.opencontainers.image.description="Endpoint picker for LLM inference pools" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision=$COMMIT
COPY --from=build /image/ /
USER 65532:65532
# ext_proc, gRPC health, metrics
EXPOSE 9002 9003 9090
ENTRYPOINT ["/pointsman"]
