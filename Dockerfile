# One image for all services: docker-compose.yml says which of them a container is.

FROM python:3.11-slim AS build
# The locked packages first: their layer is kept until the lock file changes. Wheels only, so no compiler is needed.
COPY requirements.lock /tmp/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --require-hashes --only-binary=:all: --prefix=/packages -r /tmp/requirements.lock
COPY merkle /app/merkle
COPY node /app/node
COPY serving /app/serving
COPY bootnode /app/bootnode
COPY gateway /app/gateway
COPY cluster /app/cluster
COPY LICENSE pyproject.toml /app/
# Compiled here, since the root file system of a container is read-only.
RUN python -m compileall -q /packages /app \
    && printf '#!/bin/sh\nexec python -P -m cluster "$@"\n' > /packages/bin/psephos \
    && chmod 755 /packages/bin/psephos

FROM python:3.11-slim
LABEL org.opencontainers.image.title="psephos" \
      org.opencontainers.image.description="A proof-of-authority validator network with a gateway for ballots and Merkle anchors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.documentation="docs/OPERATIONS.md"
# Nothing that installs packages is left. A new volume takes its owner from the folder that it is mounted on.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip setuptools wheel \
    && groupadd --system --gid 10001 psephos \
    && useradd --system --uid 10001 --gid psephos --home-dir /network --no-create-home --shell /usr/sbin/nologin psephos \
    && for name in bootnode validator-1 validator-2 validator-3 observer gateway gateway-secrets; do \
           install -d -m 700 -o psephos -g psephos "/network/$name"; \
       done \
    && chown psephos:psephos /network
COPY --from=build /packages /usr/local
COPY --from=build /app /app

ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /network
# Whichever process it is: the only configuration file below /network says where to ask.
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=6 CMD ["python", "-P", "-m", "cluster.healthcheck"]
ENTRYPOINT ["psephos"]
CMD ["--help"]
