# Every command of the house. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: transcripts fuzz help install up demo serve worker migrate migration test check house golden fmt bench reproduce bench-registry bench-verdicts openapi clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Nirvana needs Python 3.11 or later, found $$($(PYTHON) --version). Try: make PYTHON=python3.11 install"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(READY) ## make the environment in .venv

up: $(READY) ## service and worker on 127.0.0.1:8000; on an empty database, find and verify a first ticket
	$(BIN)/nirvana up

demo: $(READY) ## the same job in a throw-away home; exits 0 when the ticket is verified
	$(BIN)/nirvana up --demo

serve: $(READY) ## the service alone
	$(BIN)/nirvana serve

worker: $(READY) ## a worker alone
	$(BIN)/nirvana worker

migrate: $(READY) ## bring the database to the newest schema
	$(BIN)/nirvana migrate

migration: $(READY) ## write a migration from the models: make migration m="what changes"
	$(BIN)/alembic revision --autogenerate -m "$(m)"

test: $(READY) ## run the tests, on SQLite and PostgreSQL (ARGS="-n 2 --dist loadfile": two files at once)
	scripts/with-postgres $(BIN)/python -m pytest $(ARGS)

check: $(READY) ## lint, format, types, import rules and the bounds of house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/house.py

house: $(READY) ## measure the structure of the code, and bound it (ARGS="--worst 10": where)
	$(BIN)/python scripts/house.py $(ARGS)

golden: $(READY) ## write what one seed gives here, after a change that is meant to change bits
	$(BIN)/python -m tests.golden

fmt: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## speed, memory and accuracy, to docs/performance.md (25 minutes; ARGS=--full: searches of full length)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks --write docs/performance.md $(ARGS)

reproduce: $(READY) ## the literature's experiments, to docs/results.md (90 minutes; ARGS=--full: the paper's budget)
	$(BIN)/python -m benchmarks.reproduce --write docs/results.md $(ARGS)

transcripts: $(READY) ## what the command line prints, to docs/cli.md (2 minutes)
	$(BIN)/python scripts/transcripts.py

bench-registry: $(READY) ## the registry's speed, to docs/registry-performance.md (25 minutes; ARGS="--sizes 1000000 --parts lists")
	NIRVANA_TEST_FSYNC=on scripts/with-postgres $(BIN)/python -m benchmarks.registry_page --write docs/registry-performance.md $(ARGS)

bench-verdicts: $(READY) ## how often a verdict is wrong, to docs/verdict-rates.md and docs/adversary-rates.md (1.5 hours; ARGS="--only adversary-rates")
	$(BIN)/python -m benchmarks.verdict_rates --write docs $(ARGS)

openapi: $(READY) ## write the OpenAPI snapshot after a deliberate change of the API
	NIRVANA_WRITE_SNAPSHOT=1 $(BIN)/python -m pytest -q tests/http -k openapi

fuzz: $(READY) ## requests that nobody would make, on both databases (5 minutes each; ARGS="--seconds 3600": an hour)
	scripts/with-postgres $(BIN)/python -m tests.fuzz $(ARGS)

clean: ## remove what was built, but not .venv and no data
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
