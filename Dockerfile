# For a CPU: docker build --tag tunemill .
# For CUDA:  docker build --tag tunemill:cuda --build-arg DEVICE=cuda .
# docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" tunemill run pipeline.yml     (CUDA: --gpus all)
ARG DEVICE=cpu

FROM python:3.11-slim-bookworm AS installed
ARG DEVICE
WORKDIR /source
# What changes seldom comes first: an edit of the code installs no library again.
COPY constraints.txt ./
RUN case "$DEVICE" in \
        cpu) index=https://download.pytorch.org/whl/cpu ;; \
        cuda) index=https://pypi.org/simple ;; \
        *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac \
    && python -m venv /opt/tunemill \
    && /opt/tunemill/bin/pip install --no-cache-dir --index-url "$index" --extra-index-url https://pypi.org/simple \
        --constraint constraints.txt torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY docs docs
COPY examples examples
COPY kernels kernels
COPY pipelines pipelines
COPY resources resources
COPY stages stages
COPY tunemill tunemill
RUN /opt/tunemill/bin/pip install --no-cache-dir --constraint constraints.txt '.[s3,signing]'

FROM python:3.11-slim-bookworm AS on-cpu

FROM python:3.11-slim-bookworm AS on-cuda
# Triton compiles the launchers of kernels where they run.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

FROM on-${DEVICE}
RUN useradd --no-create-home --uid 10001 tunemill && install --directory --owner tunemill /work
COPY --from=installed /opt/tunemill /opt/tunemill
# Whoever runs it: caches stand beside the results.
ENV PATH=/opt/tunemill/bin:$PATH HOME=/work
USER tunemill
WORKDIR /work
ENTRYPOINT ["tunemill"]
CMD ["--help"]
