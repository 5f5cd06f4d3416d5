# The server alone: the protocol and tenure_server, no LangGraph, no LangChain.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements/build.txt requirements/server.txt requirements/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements/build.txt \
 && python -m venv --without-pip /opt/tenure \
 && /opt/build/bin/pip --python /opt/tenure install --require-hashes --only-binary :all: -r requirements/server.txt
COPY proto proto
COPY server server
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir wheels ./proto ./server \
 && /opt/build/bin/pip --python /opt/tenure install --no-index --no-deps wheels/*.whl \
 && /opt/tenure/bin/python -m compileall -q /opt/tenure/lib

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="tenure" \
      org.opencontainers.image.description="Shared memory for LangGraph agents, the service" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/tenure /opt/tenure
COPY LICENSE /usr/share/doc/tenure/LICENSE
ENV PATH=/opt/tenure/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TENURE_LISTEN=0.0.0.0:7443
# No name in /etc/passwd is needed; the number lets Kubernetes see that it is not root.
USER 10001:10001
EXPOSE 7443
STOPSIGNAL SIGTERM
ENTRYPOINT ["tenure"]
CMD ["serve"]
