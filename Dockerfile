# One image for every process of Mien; `docker build --target cuda` makes the one for GPU workers.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/mien
WORKDIR /src
COPY requirements/default.lock requirements/default.lock
RUN /opt/mien/bin/pip install --only-binary :all: --no-deps -r requirements/default.lock
COPY . .
RUN /opt/mien/bin/python -m hatchling build -t wheel \
    && /opt/mien/bin/pip install --no-deps dist/*.whl

# torch and what it brings: gigabytes, for CUDA alone
FROM build AS build-cuda
RUN /opt/mien/bin/pip install torch==2.13.0 \
    && /opt/mien/bin/pip install --only-binary :all: --no-deps -r requirements/cuda.lock

FROM python:3.13-slim AS ground
# the user owns only the data; the program is root's and cannot be changed by it
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin mien \
    && install -d -o mien -g mien -m 0750 /data
ENV PATH=/opt/mien/bin:$PATH PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 MIEN_DATA_DIR=/data
WORKDIR /home/mien

# torch's compiler needs a C compiler for its kernels' launchers; what it compiled is kept with the data
FROM ground AS cuda
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV TORCHINDUCTOR_CACHE_DIR=/data/inductor TRITON_CACHE_DIR=/data/triton
COPY --from=build-cuda /opt/mien /opt/mien
USER mien
VOLUME /data
CMD ["mien", "doctor"]

FROM ground AS base
USER mien
VOLUME /data
EXPOSE 8616
CMD ["mien", "doctor"]

# last, so that it is what `docker build .` makes
FROM base AS mien
COPY --from=build /opt/mien /opt/mien
