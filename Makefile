# The commands of this repository. `make` alone lists them.
# Everything is installed into .venv from pinned, hashed requirement files; nothing else on the machine is touched,
# except that `make test` installs the Debian packages that the tests need, if they are missing.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
ENV    := PIP_ROOT_USER_ACTION=ignore

.PHONY: help env run test check lint format bench docs lock clean
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# A stamp per requirement set, named after the files' digest: an unchanged set costs nothing, a changed one is installed again.
RUN_STAMP  := $(VENV)/run-$(shell cat requirements/build.txt requirements/run.txt pyproject.toml | sha256sum | cut -c1-12)
TEST_STAMP := $(VENV)/test-$(shell cat requirements/build.txt requirements/run.txt requirements/test.txt pyproject.toml | sha256sum | cut -c1-12)

$(RUN_STAMP):
	@echo "gridloom: making the environment in $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gridloom: Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "gridloom: python3-venv is needed: apt-get install python3-venv"; exit 2; }
	@$(ENV) $(PIP) install --require-hashes -r requirements/build.txt
	@$(ENV) $(PIP) install --require-hashes -r requirements/run.txt
	@$(ENV) $(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/run-*; touch $@

$(TEST_STAMP): $(RUN_STAMP)
	@echo "gridloom: installing what the checks and tests need (once)"
	@$(ENV) $(PIP) install --require-hashes -r requirements/test.txt
	@rm -f $(VENV)/test-*; touch $@

env: $(RUN_STAMP) ## make the environment .venv

run: env ## start the hub; ARGS="--config gridloom.toml" for your own configuration
	@$(BIN)/gridloom serve $(ARGS)

lint: $(TEST_STAMP) ## ruff, mypy --strict, import contracts
	@echo "== ruff";           $(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@echo "== mypy --strict";  $(BIN)/mypy --no-error-summary
	@echo "== import contracts"; $(BIN)/lint-imports --no-logo > .import_linter.log 2>&1 || { cat .import_linter.log; rm -f .import_linter.log; exit 1; }; rm -f .import_linter.log

test: lint ## install what the tests need, run all checks and tests
	@tests/debian-packages
	@echo "== pytest"; $(BIN)/python -m pytest $(PYTEST_ARGS)

format: $(TEST_STAMP) ## let ruff arrange the code
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

bench: $(TEST_STAMP) ## run the benchmarks, each prints JSON with a floor of the same run
	@for file in bench/[a-z]*.py; do echo "== $$file" >&2; $(BIN)/python $$file || exit 1; done

docs: $(TEST_STAMP) ## write the generated pages of docs/reference again
	@$(BIN)/python docs/generate.py

lock: $(TEST_STAMP) ## resolve the requirement files anew (needs uv)
	@for set in build run test; do uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--upgrade requirements/$$set.in --output-file requirements/$$set.txt || exit 1; done

clean: ## remove the environment and caches
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
