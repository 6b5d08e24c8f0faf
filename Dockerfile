# docker build -t captioner .                              with the locked torch, which has CUDA (docker run --gpus all)
# docker build -t captioner --build-arg TORCH_INDEX=URL .  with torch from a package index of CPU builds, 4 GB smaller
# docker run captioner                                     make demo
# docker run captioner make test
FROM python:3.11-slim
ARG TORCH_INDEX=""
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /captioner
COPY . .
RUN make setup && if [ -n "$TORCH_INDEX" ]; then \
        export PIP_PYTHON=.venv/bin/python; \
        pip freeze | grep -oE "^(nvidia|triton)[^=]*" | xargs pip uninstall -qq -y; \
        pip install --force-reinstall --no-deps --index-url "$TORCH_INDEX" $(pip freeze | grep -E "^torch(vision)?=="); \
    fi
CMD ["make", "demo"]
