# Set-up happens by itself: every target installs into .venv first, against constraints.txt.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: help install train demo test check lint bench chaos long projects compat ui clean

help:
	@echo "make train   install, then run flows/train_flow.py on the sample that ships"
	@echo "make demo    install, then deploy flows in an empty folder, serve a model and watch it replaced by itself (minutes)"
	@echo "make test    install, then run the tests"
	@echo "make check   install, then lint and the tests that take seconds"
	@echo "make lint    ruff, mypy and import-linter"
	@echo "make bench   run the benchmarks of tests/bench and write docs/benchmarks.md (hours)"
	@echo "make chaos   kill runs that score and explain, what a bridged flow is made of, a scheduler, a request log"
	@echo "make long    whole flows of each task, on S3, on two Ray nodes, with a task of another package: minutes each"
	@echo "make projects  make a project for each task from the wheel, train it and run its tests"
	@echo "make compat  import the flows as Airflow's DAG files into a real Airflow, which goes into .venv-compat"
	@echo "make ui      open the MLflow portal on loopback"
	@echo "make clean   remove .venv, .venv-compat and caches; data, runs and models stay"

# Python compiles a module when it is imported first: most of those of the packages never are. Where the variable is set,
# as in many containers, each process would compile what it imports again: twice the time of most commands
export PYTHONDONTWRITEBYTECODE =

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/installed

train: install
	$(BIN)/python flows/train_flow.py run

demo: install
	$(BIN)/python examples/production.py production-demo

test: install
	$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder

check: lint
	$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder -m 'not slow and not chaos and not compat and not projects and not long'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python tests/bench/report.py
	$(BIN)/python tests/bench/bridge.py

chaos: install
	$(BIN)/python -m pytest -m chaos
	$(BIN)/python tests/chaos/bridge.py
	$(BIN)/python tests/chaos/scheduler.py
	$(BIN)/python tests/chaos/serving.py

long: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder -m long

projects: install
	$(BIN)/python -m pytest -m projects tests/test_wheel.py

.venv-compat/installed: tests/compat/requirements.txt
	$(PYTHON) -m venv .venv-compat
	.venv-compat/bin/python -m pip install --disable-pip-version-check --quiet --requirement $<
	touch $@

compat: install .venv-compat/installed
	$(BIN)/python -m pytest -m compat tests/compat

ui: install
	$(BIN)/dlpipe ui

clean:
	rm -rf .venv .venv-compat .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
