# An image with the package of this clone, with all that `embed` and `segment` can write.
#
#   docker build --tag eva-coralbay .
#   docker build --build-arg TORCH_BACKEND=cu128 --tag eva-coralbay:cuda .
#
# PyTorch's builds for CUDA bring their libraries; the machine needs the driver alone.
FROM python:3.12-slim

ARG TORCH_BACKEND=cpu

ENV PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /opt/eva-coralbay
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY src src
# uv alone knows which build of PyTorch a name such as cu128 stands for
# hadolint ignore=DL3013
RUN pip install --no-cache-dir uv \
    && uv pip install --system --no-cache --torch-backend "${TORCH_BACKEND}" ".[embed,dicom-seg]" \
    && eva-coralbay --version

RUN useradd --create-home --uid 1000 coralbay
USER 1000
WORKDIR /work
CMD ["eva-coralbay", "--help"]
