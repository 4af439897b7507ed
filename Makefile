# The commands of this repository; `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := $(BIN)/pip-compile --quiet --strip-extras --no-header --no-emit-index-url --no-emit-trusted-host \
	--no-emit-options --allow-unsafe

INPUTS ?= 1000000
SEED ?= 0
MINUTES ?= 30

.DEFAULT_GOAL := help
.PHONY: help run test check format lock bench bench-accuracy bench-false-alarms fuzz soak clean

help: ## List the commands.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/run.stamp: requirements.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing requirements.txt into $(VENV), which takes half a minute ..."
	@$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing requirements-dev.txt into $(VENV), which takes a minute ..."
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@ $(VENV)/run.stamp

run: $(VENV)/run.stamp ## Serve on HOST:PORT (127.0.0.1:8000) with an embedded database in DATA_DIR (./data).
	@$(BIN)/python -m app serve

test: $(VENV)/dev.stamp ## Run all tests against real servers.
	@$(BIN)/python -m pytest --numprocesses auto $(PYTEST_ARGS)

check: $(VENV)/dev.stamp ## Lint, formatting, types, migrations, Dockerfile and compose file.
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@DATA_DIR=$$(mktemp -d) DATABASE_URL= DATABASE_HOST= sh -c \
		'$(BIN)/python -m app migrate >/dev/null && $(BIN)/alembic check; status=$$?; rm -r "$$DATA_DIR"; exit $$status'
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: $(VENV)/dev.stamp ## Format the code and mend what the linter can.
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

lock: $(VENV)/dev.stamp ## Pin the dependencies of pyproject.toml anew.
	@$(LOCK) --output-file requirements.txt pyproject.toml
	@$(LOCK) --extra cluster --output-file requirements-cluster.txt pyproject.toml
	@$(LOCK) --extra dev --output-file requirements-dev.txt pyproject.toml
	@$(LOCK) --extra fuzz --output-file requirements-fuzz.txt pyproject.toml

bench: $(VENV)/dev.stamp ## Measure speed on PostgreSQL and Redis with wrk, and write benchmark/RESULTS.md.
	@$(BIN)/python -m benchmark.speed

bench-accuracy: $(VENV)/dev.stamp ## Measure accuracy on the labelled series in DATA=folder, and write benchmark/ACCURACY.md.
	@$(BIN)/python -m benchmark.accuracy "$(DATA)" $(ARGS)

bench-false-alarms: $(VENV)/dev.stamp ## Measure false alarms on normal data, and write benchmark/FALSE_ALARMS.md.
	@$(BIN)/python -m benchmark.accuracy.false_alarms $(ARGS)

fuzz: $(VENV)/dev.stamp ## Give bad input to all parsers: INPUTS=1000000 SEED=0; what it finds goes to fuzz-findings.
	@$(BIN)/python -m tests.fuzzing --inputs $(INPUTS) --seed $(SEED) $(ARGS)

soak: $(VENV)/dev.stamp ## Watch memory and files under mixed traffic for MINUTES=30, and write it to benchmark/RESULTS.md.
	@$(BIN)/python -m benchmark.soak --minutes $(MINUTES) --record $(ARGS)

clean: ## Remove the virtual environment and caches; DATA_DIR stays.
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
