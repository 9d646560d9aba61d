# Everything runs in .venv, which is built from pyproject.toml and constraints.txt when it is missing or older than them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help train test lint types unit format validate study bench gpu-check wheel figures clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; say which one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

train: $(STAMP) ## train, test and draw the default model on real digits (ARGS="--beta 12 ..." changes it)
	$(BIN)/python -m dvaepp.train $(ARGS)

test: lint types unit ## lint, types and all tests that need no GPU

lint: $(STAMP) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## check types
	$(BIN)/mypy

# Two workers with one thread each: small matrices gain nothing from more threads, and two pools fight over the cores.
# The kernels are compiled once beforehand: two workers would each compile them, inside the tests' time limits.
unit: $(STAMP) ## run the tests (ARGS="-k name" selects)
	$(BIN)/python -m accelerated --compile
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not gpu and not slow' $(ARGS)

validate: $(STAMP) ## judge every implementation that can run here; writes validation.html (ARGS="--quick" looks only)
	$(BIN)/python -m validation --html validation.html $(ARGS)

study: $(STAMP) ## run the tests that take minutes: 200 random machines against all estimates of log Z, torch.compile
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)

bench: $(STAMP) ## time the CPU kernels beside their peers; writes benchmarks/DATE-cpu.* (ARGS="--quick" looks only)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.cpu $(ARGS)

gpu-check: $(STAMP) ## judge the CUDA kernels on this machine's device, then time them; writes benchmarks/DATE-gpu.*
	$(BIN)/python -m benchmarks.gpu $(ARGS)

format: $(STAMP) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

figures: $(STAMP) ## draw the pictures of docs/figures (ARGS="mixing nu" chooses)
	$(BIN)/python -m validation.figures $(ARGS)

clean: ## remove what was built; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
