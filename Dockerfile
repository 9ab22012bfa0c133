# Build for CPU: docker build --target cpu -t ssd .          for GPU: docker build --target gpu -t ssd-gpu .
# Without --target the build is for CPU.
# Run: docker run --rm -v DATA:/data -v RUNS:/runs ssd train.py --coco_root=/data --output_path=/runs/first
# On a GPU add --gpus all --shm-size=8g. CUDA's libraries come from the wheels; the host brings the driver.
# Scripts: docker run --rm -v RUNS:/runs --entrypoint bash ssd scripts/gpu_check.sh /runs/check
# The programs run as user 1000, who must be able to write to RUNS: chown 1000 RUNS, or
# docker run --user "$(id -u)" -e HOME=/runs ...
# --rm deletes everything outside RUNS: converted data, compiled graphs, and on a GPU what its driver compiled for
# minutes (docs/gpu.md). To keep them, and for every --user but 1000, who cannot write to /app:
#   train.py ... --mindrecord_dir=/runs/mindrecord --compile_cache=/runs/cache
#   on a GPU also docker run -e CUDA_CACHE_PATH=/runs/nv ...
# Tested: the Python of Debian 12 with the packages of requirements*.txt.
FROM debian:12.12-slim AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# MindSpore links libgomp; mpirun reaches other hosts with ssh; g++ compiles our kernels for the CPU at the first run
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ libgomp1 openssh-client python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ssd \
    && mkdir /app /data /runs \
    && chown ssd:ssd /app /runs
USER 1000:1000
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1
ENTRYPOINT ["python"]
CMD ["train.py", "--help"]
# setup_env.sh leaves a mark, so that the other scripts install nothing again
COPY --chown=ssd:ssd scripts/setup_env.sh scripts/arguments.sh scripts/
COPY --chown=ssd:ssd requirements.txt ./
RUN bash scripts/setup_env.sh

FROM base AS cpu
COPY --chown=ssd:ssd . .

FROM base AS gpu
COPY --chown=ssd:ssd requirements-gpu.txt ./
RUN bash scripts/setup_env.sh requirements-gpu.txt
COPY --chown=ssd:ssd . .

# the last stage is the one a build without --target makes
# hadolint ignore=DL3006
FROM cpu
