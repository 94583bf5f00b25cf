# What a newcomer types. Everything runs inside .venv, which the first target makes.
# The fastest of the machine's Pythons, whose builds differ by a quarter; looked for once, and only if it is needed.
PYTHON ?= $(eval PYTHON := $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p benchmarks/interpreter.py --fastest 2>/dev/null && break; done))$(PYTHON)
BIN := .venv/bin
PACKAGES := model wal consensus storage proxy backup conf server
ROUNDS ?= 20
SEEDS ?= 200
JOBS ?= 1
# Real processes need no reactor in the test's own.
REAL := -q -p no:twisted -o addopts=--import-mode=importlib -n 2 --dist loadfile

.PHONY: demo serve cluster test check format integration explore crash sim docs clean

demo: .venv/.installed  ## the example of the README against a server of its own, then stop
	$(BIN)/python -m server.demo

serve: .venv/.installed  ## a server on RethinkDB's ports, data in rewinddb_data/
	$(BIN)/rewinddb serve --config conf/single.yaml

cluster: .venv/.installed  ## three servers on this machine, until Ctrl-C (docs/cluster.md)
	$(BIN)/python -m server.cluster.local

test: .venv/.installed
	$(BIN)/pytest tests -q

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict $(PACKAGES)
	$(BIN)/lint-imports
	$(BIN)/pytest tests -q

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

integration: .venv/.installed  ## real processes: kill -9, the official tools, full disk
	$(BIN)/pytest integration $(REAL) --rounds $(ROUNDS)

explore: .venv/.installed  ## random tests with new examples, many more of them
	HYPOTHESIS_PROFILE=explore $(BIN)/pytest tests -q --timeout 1200

crash: .venv/.installed  ## the long crash test
	$(BIN)/pytest integration/test_crash.py $(REAL) --dist load --rounds 200

sim: .venv/.installed  ## a simulated cluster: SEEDS=20000 histories, JOBS=2 processes
	$(BIN)/python -m tests.sim --seeds $(SEEDS) --jobs $(JOBS)

docs: .venv/.installed  ## prints docs/compatibility.md from the term registry
	$(BIN)/python -m server.compatibility > docs/compatibility.md

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

.venv/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "RewindDB needs Python 3.11 or newer; none was found."; exit 1; }
	@test -x $(BIN)/python || { echo "Making the environment in .venv with $(PYTHON) (about a minute) ..."; $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
