FROM python:3.11.14-slim-bookworm AS build
# A venv without pip of its own: the installer stays in this stage.
RUN python -m venv --without-pip /opt/venv
COPY requirements.txt /build/requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python --disable-pip-version-check install \
    --only-binary=:all: --requirement /build/requirements.txt
WORKDIR /opt/tidemark
COPY alembic.ini ./
COPY alembic ./alembic
COPY app ./app
# Compiled here, because the running container may not write to its own files.
RUN /opt/venv/bin/python -m compileall -q alembic app

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 tidemark \
    && useradd --uid 10001 --gid tidemark --no-create-home --home-dir /data --shell /usr/sbin/nologin tidemark \
    && install --directory --owner=tidemark --group=tidemark /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/tidemark /opt/tidemark
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATA_DIR=/data \
    NUMBA_CACHE_DIR=/data/numba \
    LOG_FORMAT=json
WORKDIR /opt/tidemark
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/livez\", timeout=3)"]
CMD ["python", "-m", "app", "serve"]
