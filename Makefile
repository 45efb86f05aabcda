# FTGO in Python: the verbs. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
# Not the scripts beside it: their first line names the place of the checkout, and not every name is fit for one.
PY := .venv/bin/python
RUN := $(PY) -P -m
DISTS := shared/messaging shared/contracts shared/service_kit shared/local \
	services/order services/consumer services/kitchen services/accounting

.PHONY: help up down reset status logs doctor demo bench bench-scaling bench-relay chaos chaos-selftest mutants test test-slow test-brokers test-emulations brokers check docs k8s-check \
	k8s-try compose-up compose-check lock clean

help: ## list the verbs
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# What the shell holds for other programs: it would put packages elsewhere, or find others than those of requirements.lock.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME PYTHONPATH

# A .venv knows the place where it was made. In a checkout that was moved or copied, or without its Python, it is made again.
MOVED := $(shell [ ! -e .venv/ready ] || { [ -x $(PY) ] \
	&& grep -qsxF "$$(pwd -P)/shared/local/src" .venv/lib/python3*/site-packages/*ftgo_local*.pth; } || echo moved)

.PHONY: moved
.venv/ready: requirements.lock $(addsuffix /pyproject.toml,$(DISTS)) $(MOVED)
	@echo "Installing into .venv, with hashes (about a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(if $(MOVED),--clear) .venv
	$(RUN) pip install --quiet --require-hashes -r requirements.lock
	$(RUN) pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(DISTS))
	@touch $@

# kafka, rabbitmq, activemq, valkey, nats, or direct (no broker). Without it, that of the last start; Kafka the first time.
BROKER ?=
WITH_BROKER = $(if $(BROKER),--broker $(BROKER))

up: .venv/ready ## start everything: PostgreSQL, Kafka (or make up BROKER=nats), four services; Ctrl-C stops it
	@$(RUN) ftgo_local up $(WITH_BROKER)

down: .venv/ready ## stop what `make up` started
	@$(RUN) ftgo_local down

reset: .venv/ready ## stop and forget all data
	@$(RUN) ftgo_local reset

status: .venv/ready ## what runs
	@$(RUN) ftgo_local status

logs: .venv/ready ## a service's log: make logs SERVICE=order
	@$(RUN) ftgo_local logs $(or $(SERVICE),order) --follow

doctor: .venv/ready ## can this machine run it?
	@$(RUN) ftgo_local doctor $(WITH_BROKER)

demo: .venv/ready ## a tour: orders, refusals, outages, duplicates
	@$(RUN) ftgo_local demo $(WITH_BROKER)

bench: .venv/ready ## throughput, latency and cost per order
	@$(PY) e2e-tests/benchmarks/bench.py

bench-scaling: .venv/ready ## throughput of a service with 1, 2 and 4 workers
	@$(PY) e2e-tests/benchmarks/scaling.py

bench-relay: .venv/ready ## what the relays move, how late, and what they cost: make bench-relay ARGS="--old-rows 10000000"
	@$(PY) e2e-tests/benchmarks/relay.py $(ARGS)

chaos: .venv/ready ## faults under load, judged by a checker: make chaos ARGS="--minutes 2 --seed 7 --broker nats"
	@$(PY) e2e-tests/chaos/run.py $(ARGS)

chaos-selftest: .venv/ready ## is the checker any good? fifteen planted bugs, each to be found
	@$(PY) e2e-tests/chaos/selftest.py $(ARGS)

mutants: .venv/ready ## do the library's tests notice when its code is wrong? make mutants ARGS="--module sagas --sample 50"
	@$(PY) shared/messaging/mutants/run.py $(ARGS)

PLATFORM ?= embedded
TESTS ?= $(if $(filter containers,$(PLATFORM)),shared services,$(if $(filter elsewhere,$(PLATFORM)),e2e-tests/journeys))

test: .venv/ready ## all tests but the slow ones, on servers of their own; in Docker's: make test PLATFORM=containers
	@$(RUN) pytest --platform=$(PLATFORM) -m "not slow" $(TESTS)

test-slow: .venv/ready ## every failpoint in every way, a rolling restart, outages of servers
	@$(RUN) pytest -m "slow and not brokers" --timeout 300

test-brokers: .venv/ready ## the transports' promises and the journeys, on every broker that starts here (or BROKER=...)
	@$(PY) e2e-tests/brokers/suites.py $(BROKER) -- $(ARGS)
	@$(if $(BROKER),,$(RUN) pytest -q -m brokers --timeout 300 e2e-tests/moving \
		shared/messaging/tests/integration/test_transport_suite_finds_in_processes.py \
		shared/messaging/tests/integration/test_transport_suite_finds_in_services.py)

test-emulations: .venv/ready ## the conformance suite and the journeys of orders on an emulation of the AWS API (SQS)
	@$(PY) e2e-tests/emulations/run.py -- $(ARGS)
	@$(RUN) pytest -q --timeout 300 shared/messaging/tests/integration/test_aws_sqs.py

brokers: .venv/ready ## measure every broker that starts here, write docs/brokers.md (ARGS="--only nats,valkey", --long, --system)
	@$(PY) e2e-tests/brokers/measure.py $(ARGS)

check: .venv/ready ## lint, import rules, types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(PY) .venv/bin/lint-imports --no-cache
	$(RUN) mypy -p ftgo_messaging -p ftgo_contracts -p ftgo_service_kit -p ftgo_local \
		-p ftgo_order -p ftgo_consumer -p ftgo_kitchen -p ftgo_accounting

docs: .venv/ready ## write docs/openapi and docs/asyncapi.json from the code
	@$(PY) docs/generate.py

k8s-check: .venv/ready ## build, validate and compare the Kubernetes manifests
	@k8s/check

k8s-try: .venv/ready ## the manifests on a real cluster: make k8s-try, or with K8S_CONTEXT=kind-kind
	@$(PY) e2e-tests/kubernetes/run.py $(ARGS) || [ $$? = 77 ]

compose-up: ## start everything in Docker (BROKER=nats, too), and say beforehand what would stand in the way
	@BROKER=$(BROKER) compose/up

compose-check: .venv/ready ## build the containers and go through the journeys (needs Docker; BROKER=nats: on that one)
	@$(if $(filter-out kafka,$(BROKER)),e2e-tests/compose/brokers $(BROKER),e2e-tests/compose/run)

LOCK = $(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock: .venv/ready ## lock the requirements again, with hashes
	$(LOCK) requirements.in -o requirements.lock
	$(LOCK) requirements-service.in -c requirements.lock -o requirements-service.lock
	$(LOCK) requirements-tests.in -c requirements.lock -o requirements-tests.lock

clean: ## remove what make has made, but not the data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
