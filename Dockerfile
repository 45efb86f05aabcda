# Every image of FTGO: docker build --build-arg SERVICE=order .
# --target tools is the image of the jobs (topics, seed, demo, e2e), --target tests that of the end-to-end tests, which go
# to the deployment that the environment names; the last stage, the default, is the service.

FROM python:3.13-slim AS packages
# For this stage only: the extension modules of uvloop and asyncpg carry 25 MB of symbols for a debugger along.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends binutils >/dev/null \
 && rm -rf /var/lib/apt/lists/*
COPY requirements-service.lock /
# Wheels only, each checked against its hash. Byte code is made here: the root file system is read-only at run time.
# pip itself stays in this stage. C sources and headers that some wheels carry along are of no use without a compiler.
# Symbols are taken out of what Cython has made, not out of the bundled libraries (*.libs): their wheels' makers have
# rewritten those in a way that strip does not understand.
RUN python -m venv --without-pip /opt/ftgo \
 && python -m pip --python /opt/ftgo/bin/python install --quiet --no-cache-dir --no-compile \
      --require-hashes --only-binary :all: -r /requirements-service.lock \
 && find /opt/ftgo -type f \( -name '*.c' -o -name '*.cpp' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' \) -delete \
 && find /opt/ftgo -type f -name '*.cpython-*.so' -exec strip --strip-unneeded {} + \
 && find /opt/ftgo -type d -name tests -prune -exec rm -r {} + \
 && /opt/ftgo/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/ftgo/lib

FROM python:3.13-slim AS runtime
RUN groupadd --gid 10001 ftgo \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ftgo \
 && install -d -o ftgo -g ftgo -m 0750 /var/lib/ftgo
COPY --from=packages /opt/ftgo /opt/ftgo
ENV PATH=/opt/ftgo/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1
WORKDIR /app
USER 10001:10001

FROM python:3.13-slim AS shared-code
COPY shared/messaging/src shared/contracts/src shared/service_kit/src /app/
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM shared-code AS tools-code
COPY shared/local/src e2e-tests/compose/journeys.py /app/
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/ftgo_local /app/journeys.py

FROM runtime AS tools
COPY --from=tools-code /app /app
CMD ["python", "-m", "ftgo_local.seed"]

FROM packages AS test-packages
COPY requirements-tests.lock /
RUN python -m pip --python /opt/ftgo/bin/python install --quiet --no-cache-dir --no-compile \
      --require-hashes --only-binary :all: -r /requirements-tests.lock \
 && /opt/ftgo/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/ftgo/lib

FROM tools AS tests
COPY --from=test-packages /opt/ftgo /opt/ftgo
WORKDIR /tests
COPY pyproject.toml conftest.py ./
COPY e2e-tests/journeys e2e-tests/journeys
# The only place where something may be written.
ENV HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
CMD ["python", "-P", "-m", "pytest", "--platform=elsewhere", "--timeout=300", "-p", "no:cacheprovider", "e2e-tests/journeys"]

FROM shared-code AS service-code
ARG SERVICE
COPY services/${SERVICE}/src /app/
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/ftgo_${SERVICE}

FROM runtime AS service
ARG SERVICE
ENV FTGO_SERVICE=${SERVICE}
COPY --from=service-code /app /app
# Without curl, and without starting a whole Python: -S and -E leave out what this line does not need (15 ms).
HEALTHCHECK --interval=2s --timeout=5s --start-period=60s --retries=15 CMD ["python", "-SE", "-c", "\
import os, socket, sys; \
port = int(os.environ['FTGO_' + os.environ['FTGO_SERVICE'].upper() + '_PORT']); \
s = socket.create_connection(('127.0.0.1', port), 4); \
s.sendall(b'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n'); \
sys.exit(b' 200 ' not in s.recv(64))"]
STOPSIGNAL SIGTERM
# The shell only puts the name in; exec makes the service process number 1, which gets SIGTERM itself.
CMD ["sh", "-c", "exec python -m ftgo_${FTGO_SERVICE}.entrypoints.service"]
