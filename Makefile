# `make` lists what there is. Everything is installed below this folder (.cache, target,
# tests/js/node_modules), except Chromium, which the tests of the chat page take from Debian.

SHELL := /bin/sh
# An assignment of its own: `export X="$(command)"` would hide that the command failed.
WITH_NATS_SERVER = nats_server=$$(scripts/nats-server) && export SLIPSTREAM_NATS_SERVER="$$nats_server"
WITH_MONGOWIRE = mongowire=$$(scripts/mongowire) && export SLIPSTREAM_MONGOWIRE="$$mongowire"
WITH_CHROMIUM = chromium=$$(scripts/chromium) && export CHROMIUM="$$chromium"
NODE_MODULES := tests/js/node_modules/.package-lock.json
PYTHON_SDK := .cache/python/.requirements

.DEFAULT_GOAL := help
.PHONY: help run test test-rust test-js test-python bench fuzz fmt lint nats-server test-tools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## run everything on this machine: http://127.0.0.1:8000 (ARGS="--listen ADDR ...")
	@$(WITH_NATS_SERVER) && exec cargo run -- dev $(ARGS)

test: lint test-rust test-js test-python ## run every check and test

test-rust: ## run the Rust tests against a real nats-server and a MongoDB-compatible server
	$(WITH_NATS_SERVER) && $(WITH_MONGOWIRE) && cargo test --quiet

test-js: $(NODE_MODULES) ## run the stock SDK and a browser against a running node
	cargo build --quiet
	$(WITH_NATS_SERVER) && $(WITH_CHROMIUM) && node tests/js/run.mjs

test-python: $(PYTHON_SDK) ## run the stock SDK for Python, and Schemathesis, against a running node
	cargo build --quiet
	$(WITH_NATS_SERVER) && .cache/python/bin/python tests/python/sdk.py
	$(WITH_NATS_SERVER) && .cache/python/bin/python tests/python/openapi.py

bench: ## measure (ARGS="idle", "fanout", "publish", "resume" or "floor", with options)
	$(WITH_NATS_SERVER) && cargo run --release -- bench $(ARGS)

fuzz: ## fuzz the decoders of what clients send (SECONDS=60 for each)
	@scripts/fuzz $(or $(SECONDS),60)

fmt: ## format the code
	cargo fmt

lint: ## check format, lints and dependencies
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null 2>&1; then \
		cargo deny check bans licenses sources; \
	else \
		echo "cargo-deny is not installed; tests/dependencies.rs holds deny.toml instead"; \
	fi

nats-server: ## find a nats-server, or install one for this project
	@scripts/nats-server

test-tools: $(NODE_MODULES) $(PYTHON_SDK) ## install what `make test-js` and `make test-python` need
	@scripts/chromium

$(NODE_MODULES): tests/js/package.json tests/js/package-lock.json
	cd tests/js && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(PYTHON_SDK): tests/python/requirements.txt
	python3 -m venv .cache/python
	.cache/python/bin/python -m pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
	@touch $@
