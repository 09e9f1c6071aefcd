# Two images of the endpoint:
#   docker build --target cpu -t workbench:cpu .
#   docker build --target cuda -t workbench:cuda .
# torch's wheels for Linux are those for CUDA unless TORCH_INDEX_URL names an index of others: much smaller for a CPU.

FROM python:3.12-slim-bookworm AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The engine compiles its CPU kernels, and Triton its launchers, on the machine that runs them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    WORKBENCH_HOME=/var/lib/workbench/cache \
    HF_HOME=/var/lib/workbench/hub
RUN useradd --system --uid 10001 --home-dir /var/lib/workbench --create-home --shell /usr/sbin/nologin workbench
WORKDIR /opt/workbench
# Packages first: they change seldom, and make by far the largest layer.
COPY constraints.txt ./
ARG TORCH_INDEX_URL=""
RUN python -m pip install -c constraints.txt ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} torch
COPY pyproject.toml README.md LICENSE ./
COPY workbench workbench
COPY widgets widgets
COPY dashboards dashboards
RUN python -m pip install -c constraints.txt .
USER 10001
WORKDIR /var/lib/workbench
VOLUME /var/lib/workbench
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Beyond this machine the endpoint wants a key of yours: docker run -e WORKBENCH_API_KEY=...
ENTRYPOINT ["workbench"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS cpu
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--backend", "cpu"]

# Needs NVIDIA's container toolkit on the host (docker run --gpus all); torch's wheels bring CUDA's libraries.
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--backend", "cuda"]
