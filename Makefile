# `make demo` runs Holdfast's main job, `make test` passes its tests. Each sets up .venv by itself.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PEERS ?= $(HOME)/.cache/holdfast-peers
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
ARGS ?=
export PIP_NO_WARN_SCRIPT_LOCATION := 1

.PHONY: help demo install test cover lint types check lock peers clean

help:
	@echo 'make demo [ARGS="PATH --once"]   a local network: add, pay, prove, lose a node, repair, browse'
	@echo 'make install                     .venv/bin/holdfast'
	@echo 'make test                        all tests;  make check  adds lint and types'
	@echo 'make cover                       all tests, and what of the code they ran'
	@echo 'make peers                       other implementations that some tests compare with'
	@echo 'make lock                        renew the two lock files (needs uv)'

demo: $(VENV)/.run
	$(BIN)/holdfast demo $(ARGS)

install: $(VENV)/.run
	@echo '$(BIN)/holdfast is ready.  Try: $(BIN)/holdfast --help'

# A virtual environment that was made half-way is made anew.
$(BIN)/python:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'Holdfast needs Python 3.11 or newer, and found none. Install it, or run make PYTHON=/path/to/python3.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt install python$$v-venv (or python3-venv)." >&2; exit 1; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --only-binary :all: -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(PIP) install --require-hashes --only-binary :all: -r requirements-dev.lock
	@touch $@

test: $(VENV)/.dev
	HOLDFAST_PEERS=$(PEERS) $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# Half as long again: every process that a test starts is traced, too.
cover:
	$(MAKE) test ARGS="--cov --cov-report=term:skip-covered $(ARGS)"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types test

peers: | $(BIN)/python
	sh tests/peers/install.sh $(PEERS) $(BIN)/python

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--only-binary :all: --group build pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--only-binary :all: --constraint requirements.lock --group dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) .coverage* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis
