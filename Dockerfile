# CPU: docker build --target cpu -t ssd .          GPU: docker build --target gpu -t ssd-gpu .
# Run: docker run --rm -v DATA:/data -v RUNS:/runs ssd train.py --coco_root=/data --output_path=/runs/first
# GPU: add --gpus all --shm-size=8g; CUDA's libraries come from the wheels, the host brings the driver.
# The Python of Debian 12 and the packages of requirements*.txt are what was tested.
FROM debian:12.12-slim AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# MindSpore links libgomp; mpirun reaches other hosts with ssh
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 openssh-client python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ssd \
    && mkdir /app /data /runs \
    && chown ssd:ssd /app /runs
USER 1000:1000
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --chown=ssd:ssd requirements.txt ./

FROM base AS gpu
COPY --chown=ssd:ssd requirements-gpu.txt ./
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir -r requirements-gpu.txt
COPY --chown=ssd:ssd . .
ENTRYPOINT ["python"]
CMD ["train.py", "--help"]

FROM base AS cpu
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir -r requirements.txt
COPY --chown=ssd:ssd . .
ENTRYPOINT ["python"]
CMD ["train.py", "--help"]
