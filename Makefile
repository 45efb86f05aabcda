# FTGO in Python: the verbs. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
DISTS := shared/messaging shared/contracts shared/service_kit shared/local \
	services/order services/consumer services/kitchen services/accounting

.PHONY: help check test lock clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.venv/ready: requirements.lock $(addsuffix /pyproject.toml,$(DISTS))
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(DISTS))
	@touch $@

check: .venv/ready ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy -p ftgo_messaging -p ftgo_contracts -p ftgo_service_kit -p ftgo_local \
		-p ftgo_order -p ftgo_consumer -p ftgo_kitchen -p ftgo_accounting

test: .venv/ready ## the tests
	$(BIN)/pytest

lock: .venv/ready ## lock requirements.in again, with hashes
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		requirements.in -o requirements.lock

clean: ## remove what make has made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
