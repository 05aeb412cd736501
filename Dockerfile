# One image for CPUs and one for NVIDIA cards:
#   docker build -t neural-image-restore .
#   docker build -t neural-image-restore:cuda --build-arg DEVICE=cuda .
# Weights are fetched at the first start into the volume; --build-arg WITH_WEIGHTS=1 puts the default ones inside.
# --build-arg WITH_CLUSTER=1 adds what a service of several machines needs (docs/cluster.md).
# --build-arg BASE_IMAGE=python:3.12-slim-bookworm@sha256:... pins the base image by its digest (docs/deployment.md).
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE} AS packages

ARG DEVICE=cpu
ARG WITH_CLUSTER=0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH"
COPY requirements.txt ./
COPY locks ./locks
# The CPU builds of torch stand in their own index, which gives no hashes to keep, and are four gigabytes smaller; the
# versions are those of the file. The plain wheels of PyPI bring CUDA along.
RUN case "$DEVICE" in \
      cpu) grep -E '^(torch|torchvision)==' requirements.txt > torch.txt \
        && pip install --no-deps --index-url https://download.pytorch.org/whl/cpu -r torch.txt ;; \
      cuda) pip install --no-deps --require-hashes -r locks/torch.txt ;; \
      *) echo "DEVICE must be cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac \
    && pip install --no-deps --require-hashes -r locks/requirements.txt \
    && pip install --no-deps --require-hashes --no-build-isolation -r locks/models.txt
RUN if [ "$WITH_CLUSTER" = 1 ]; then pip install --no-deps --require-hashes -r locks/cluster.txt; fi

FROM ${BASE_IMAGE}

ARG WITH_WEIGHTS=0
# tini is process 1: it passes signals on and collects ended children.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin restore \
    && mkdir -p /data/uploads /data/results /data/database /weights \
    && chown -R restore:restore /data /weights
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/restore
COPY app ./app
COPY static ./static
COPY weights/nir-*.safetensors ./weights/
COPY requirements.txt constraints.txt ./

# Everything that is written lies in /data, /weights or /tmp, so the root may be read-only.
ENV PATH="/opt/venv/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba \
    HOST=0.0.0.0 \
    PORT=8001 \
    DASHBOARD_PORT=8091 \
    UPLOAD_FOLDER=/data/uploads \
    PROCESSED_FOLDER=/data/results \
    DATABASE_URL=sqlite:////data/database/jobs.sqlite3 \
    WEIGHTS_FOLDER=/weights

USER 10001:10001
RUN if [ "$WITH_WEIGHTS" = 1 ]; then python -m app.commands models download default; fi
EXPOSE 8001 8091
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8001') + '/health/live', timeout=4)"]
ENTRYPOINT ["tini", "--", "python", "-m", "app.commands"]
CMD ["serve"]
