# An image with everything of `make dist`, for any user id, on a read-only root file system. Nothing in it compiles.
#
#   docker build -t jcs .                                       for CPUs
#   docker build -t jcs:gpu --build-arg GPU=1 .                 with CUDA, cuDNN and NCCL
#   docker build -t jcs -f Dockerfile --build-arg FROM=archive --build-arg BUILD_BASE=debian:12 FOLDER    from an archive that lies in FOLDER
#
# BASE is what the image is built on: any system with glibc 2.34 and libstdc++ (debian:12-slim, ubuntu:22.04, rockylinux:9, …).
ARG BASE=debian:12-slim
ARG BUILD_BASE=rust:1.95-bookworm
ARG FROM=sources

FROM ${BUILD_BASE} AS sources
ARG GPU=0
ARG SOURCE_DATE_EPOCH
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv g++ make git xz-utils && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN git config --global --add safe.directory /src && make -C /src dist GPU=${GPU} && mkdir /opt/jcs && tar xJf /src/target/dist/*.tar.xz -C /opt/jcs --strip-components 1

FROM ${BUILD_BASE} AS archive
# Unpacked by the builder, which needs no xz here.
ADD *.tar.xz /opt/unpacked/
RUN mv /opt/unpacked/* /opt/jcs

FROM ${FROM} AS made

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
# The licence is that of what is ours; /opt/jcs/licences has the others.
LABEL org.opencontainers.image.title="jcs-launch" \
      org.opencontainers.image.description="Data-parallel training of JCS: classification and segmentation of chest CT" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# For https; bases other than Debian's have them.
RUN if command -v apt-get >/dev/null && [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then \
      apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; \
    fi
COPY --from=made /opt/jcs /opt/jcs
# A user id that a cluster makes up has no home; NVIDIA's container runtime is told what of the driver is needed.
ENV PATH=/opt/jcs/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
USER 65532:0
CMD ["jcs-launch", "--help"]
