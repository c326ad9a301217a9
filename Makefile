# make setup   the command fallwatch, and ruff and mypy, in .venv/bin
# make demo    the main job, shown in a minute
# make test    lint, types and the whole test suite
# make faults  the fault programme in full, an hour; FALLWATCH_SEED=2 for other faults, see docs/robustness.md
# make fuzz    every decoder fuzzed for 2 min in all; FALLWATCH_FUZZ_S=43200 for 24 CPU hours before a release
# make deb     the Debian packages for amd64 and arm64, in dist/
# make installed  those packages in whole Debian systems: set-up, update, power cuts, the Pi's kind of machine; needs root
# make lint    lint and types alone
# make lock    choose versions anew (needs uv)

PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: setup interop demo test deb installed faults fuzz lint lock clean

setup: .venv/.setup

.venv/.setup: locks/dev.txt pyproject.toml
	@echo "Setting up .venv (about a minute) ..."
	$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes --requirement locks/dev.txt
	$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

# What only tests want: training, and an ESPA station whose old build needs the setuptools of the venv.
.venv/.test: .venv/.setup locks/interop.txt training/constraints.txt
	@echo "Setting up for tests: PyTorch and peers ..."
	$(PIP) install --require-hashes --no-build-isolation --no-deps --requirement locks/interop.txt
	$(PIP) install --constraint training/constraints.txt --no-build-isolation --editable '.[training]'
	@touch $@

# An independent FHIR server for tests, which are skipped without it. Needs Node.js 20 or later and npm.
interop: .venv/interop/medplum/.done

.venv/interop/medplum/.done: $(wildcard tests/interop/medplum/*)
	@mkdir -p $(@D)
	cp $^ $(@D)
	cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

demo: .venv/.setup
	@.venv/bin/fallwatch demo

lint: .venv/.setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

test: .venv/.test lint
	.venv/bin/pytest --numprocesses 2 --dist worksteal

deb: .venv/.setup
	.venv/bin/python -m package.build

installed: .venv/.setup
	FALLWATCH_INSTALLED=1 .venv/bin/pytest -s tests/installed

faults: .venv/.setup
	FALLWATCH_FAULTS=full .venv/bin/pytest -s tests/faults

FALLWATCH_FUZZ_S ?= 120

fuzz: .venv/.setup
	.venv/bin/python -m tests.fuzz $(FALLWATCH_FUZZ_S)

LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header --upgrade --quiet

lock:
	$(LOCK) --output-file locks/run.txt
	$(LOCK) --extra dev --output-file locks/dev.txt

clean:
	rm -rf .venv build dist *.egg-info
