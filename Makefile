# `make demo` and `make test` need Python 3.10 or later and nothing else: they make .venv themselves.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-faults test-openstack test-guest-vm realcloud-up realcloud-down lint format bench clean

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@

.tools/openstackclient/installed: .venv/installed tests/clouds.py
	$(BIN)/python -c 'from tests.clouds import client_tools; client_tools()'
	touch $@

demo: .venv/installed  ## a cluster on the dev cloud, from start to stop
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

test: .venv/installed .tools/openstackclient/installed  ## every test that needs nothing but this machine
	@echo "Unit tests, and whole clusters on the embedded dev cloud, three tests at a time: 7 to 8 minutes on two cores."
	@$(BIN)/python -m pytest -q -n 3 --dist loadgroup  # they wait as much as they work; tests that share a cluster: see shared_shell in tests/end_to_end/conftest.py

test-faults: .venv/installed  ## the slow rows of docs/reliability.md, then SOAK starts and stops (50) with random faults; SEED=7: those of then
	$(BIN)/python -m pytest -n 4 -m slow tests/faults  # they wait more than they work
	$(BIN)/python -m tests.faults.soak --cycles=$(or $(SOAK),50) $(if $(SEED),--seed=$(SEED))

test-openstack: .venv/installed .tools/openstackclient/installed  ## end to end on an entry of clouds.yaml: CLOUD=real, say
	tests/openstack/run.sh "$(CLOUD)" $(if $(SETTINGS),--cloud-settings="$(SETTINGS)") $(if $(SHARED),--cloud-shared)

test-guest-vm: .venv/installed  ## the agent on a virtual machine (Debian, as root)
	tests/openstack/guest-vm/run.sh

realcloud-up: .venv/installed  ## OpenStack's own services on this machine (Debian, as root); FRESH=1: without what they had
	IPYPARALLEL=$$($(BIN)/python -c 'import ipyparallel; print(ipyparallel.__version__)') tests/openstack/realcloud/install.sh
	tests/openstack/realcloud/up.sh $(if $(FRESH),--fresh)

realcloud-down:
	tests/openstack/realcloud/down.sh

lint: .venv/installed  ## style, types, who may import whom, and what the Python 3.6 of an old image can run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --quiet --no-tips --violations --target=3.6- $(filter-out %/uploader.py,$(wildcard ipp_griffin/agent/*.py))

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.tools/peers/installed:
	$(PYTHON) -m venv .tools/peers
	.tools/peers/bin/python -m pip install --quiet --disable-pip-version-check 'dask-cloudprovider[openstack]'
	touch $@

bench: .venv/installed .tools/peers/installed  ## the figures of docs/performance.md; SHORT=1: some of them; QUICK=1: fewer, on the screen only
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(SHORT),--short)

clean:
	rm -rf .venv .tools .state build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
