# One image for all five services: docker-compose.yml says which of them a container is.
FROM python:3.11-slim

WORKDIR /app
# The locked packages first: their layer is kept until the lock file changes. Wheels only, so no compiler is needed.
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements.lock

COPY LICENSE pyproject.toml ./
COPY merkle merkle
COPY serving serving
COPY node node
COPY bootnode bootnode
COPY gateway gateway
COPY cluster cluster
RUN python -m compileall -q . \
    && printf '#!/bin/sh\nexec python -P -m cluster "$@"\n' > /usr/local/bin/psephos \
    && chmod +x /usr/local/bin/psephos \
    && useradd --system --uid 10001 --home-dir /network --shell /usr/sbin/nologin psephos \
    && mkdir -p /network/bootnode /network/validator-1 /network/validator-2 /network/validator-3 /network/gateway \
    && chown -R psephos /network

# A new volume takes its owner from the folder that it is mounted on.
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
USER psephos
WORKDIR /network
ENTRYPOINT ["psephos"]
CMD ["--help"]
