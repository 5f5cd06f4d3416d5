# Every target works on a bare machine with Python 3.11+, git and make; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench-installed

.PHONY: help setup demo test test-slow bench check format proto requirements wheels wheels-of image-check clean

UVFLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## Make .venv with everything that demo, test and check need

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tenure needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing pinned dependencies into $(VENV) (once; about a minute)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: setup ## An agent that remembers across processes and threads, on a local server
	@$(BIN)/python -m examples.demo

# Two processes, each with servers of its own: the tests of a file stay together, and most wait for something.
test: setup ## All tests, against real servers that the run starts itself
	@$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup ## The long versions of the fuzz, fault and property tests
	@TENURE_TEST_SLOW=1 $(BIN)/python -m pytest

bench: $(BENCH_STAMP) ## Measure Tenure beside other savers; make bench ARGS=--quick is short
	@$(BIN)/python -m benchmarks $(ARGS)

$(BENCH_STAMP): requirements/bench.txt $(STAMP)
	@echo "Installing what the benchmarks compare with into $(VENV) (once)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

check: setup ## Lint, types, dependency direction, protocol, generated code
	@$(BIN)/python -m scripts.check

format: setup ## Format the code
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format --quiet .

proto: setup ## Regenerate proto/tenure/v1 from the .proto files
	@$(BIN)/python -m scripts.protos

requirements: ## Pin dependencies again (needs uv); writes no host names
	@uv pip compile $(UVFLAGS) --no-emit-package tenure --extra dev pyproject.toml -o requirements/dev.txt
	@uv pip compile $(UVFLAGS) --no-emit-package tenure --extra bench -c requirements/dev.txt \
		pyproject.toml -o requirements/bench.txt
	@printf './proto\n./server[otlp]\n' | uv pip compile $(UVFLAGS) --no-emit-package tenure-proto \
		--no-emit-package tenure-server -c requirements/dev.txt - -o requirements/server.txt
	@echo 'hatchling>=1.27' | uv pip compile $(UVFLAGS) -c requirements/dev.txt - -o requirements/build.txt

wheels: setup ## Build the three wheels into dist/
	@for member in proto client server; do $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist ./$$member; done; ls dist

wheels-of: setup ## Build the wheels of a release again: make wheels-of TAG=v0.1.0
	@$(BIN)/python -m scripts.wheels $(TAG)

image-check: setup ## Rehearse the Dockerfile without a container engine
	@$(BIN)/python -m scripts.image

clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
