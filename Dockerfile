# docs/install.md says how to build and run it. Build arguments:
#   VERSION, REVISION           what the labels say
#   LINKAGE=static|dynamic      dynamic, with --target binary, for what runs outside of an image
#   SOURCE_DATE_EPOCH           seconds since 1970: the time of all files (docker buildx build --output type=…,rewrite-timestamp=true)
# Several architectures at once: docker buildx build --platform linux/amd64,linux/arm64

FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-slim-bookworm AS build
WORKDIR /build
ARG TARGETARCH
ARG LINKAGE=static
COPY packaging/image/compile.sh /usr/local/bin/
RUN compile.sh tools
COPY Cargo.toml Cargo.lock ./
RUN compile.sh dependencies
COPY build.rs LICENSE ./
COPY proto proto
COPY clients/browser/session-sidecar.js clients/browser/
COPY src src
ARG SOURCE_DATE_EPOCH
RUN compile.sh sidecar

FROM scratch AS binary
COPY --from=build /out/usr/local/bin/session-sidecar /

# No shell, no C library, no package manager: CA certificates, time zones and a user.
FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="session-sidecar" \
      org.opencontainers.image.description="Judges session timeouts exactly, warns before the end, and says why a session ended" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/static-debian12:nonroot"
COPY --from=build /out/ /
COPY --from=build --chown=65532:65532 /out-owned/ /run/session-sidecar/
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 50151 50152
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/local/bin/session-sidecar", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/session-sidecar"]
CMD ["serve"]
