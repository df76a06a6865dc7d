# `make help` lists the targets. Each builds .venv and installs the package by itself when that is missing or older
# than setup.cfg. Nothing else is needed than python3 >= 3.10 with venv, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := setup.cfg setup.py pyproject.toml $(wildcard binarize/kernels/c/*.[ch])

.PHONY: demo help check test test-all coverage docs bench lint sanitize neon clean
.DELETE_ON_ERROR:

# A .venv that was copied here from elsewhere, or whose interpreter is gone, cannot be repaired: start anew.
ifneq ($(wildcard $(VENV)),)
SOUND := grep -qsF "$(CURDIR)/$(VENV)" $(BIN)/activate && $(BIN)/python -m pip --version && echo sound
ifneq ($(lastword $(shell ($(SOUND)) 2>/dev/null)),sound)
$(info $(VENV) is unusable and is made anew)
$(shell rm -rf $(VENV))
endif
endif

demo: $(VENV)/.has-run ## the whole way on bundled data, offline, about a minute (ARGS=...)
	$(BIN)/binarize demo --out results/digits-adabin --force $(ARGS)

help: ## this list
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What a change to rules, plan, passes, capture, layers or report breaks first; at most 90 s on two idle cores.
CHECKED := tests/rules tests/schemes tests/planning tests/passes tests/capture tests/report tests/layers/test_layer.py \
	tests/test_imports.py tests/test_architecture.py

# Each process takes one stretch of the tests, so that neither makes the models of the other's files again.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.has-test $(VENV)/.has-dev ## the fast slice before a commit: tests of the core, and ruff check (ARGS=...)
	$(BIN)/python -m ruff check .
	$(PYTEST) -q $(CHECKED) $(ARGS)

test: $(VENV)/.has-test ## the test suite, of large grids a sample; at most 8 minutes on two idle cores (ARGS="-k words")
	$(PYTEST) $(ARGS)

test-all: $(VENV)/.has-test ## whole grids, slow tests and real processes too (ARGS="-k words")
	$(PYTEST) --all $(ARGS)

coverage: $(VENV)/.has-test $(VENV)/.has-dev ## which lines the tests of test-all do not run (ARGS="-k words")
	$(PYTEST) --all --cov=binarize --cov-report=term:skip-covered $(ARGS)

docs: $(VENV)/.has-test $(VENV)/.has-docs ## the site in build/docs, warnings as errors, and every command of its pages (ARGS=...)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	$(PYTEST) -q --docs tests/test_docs.py $(ARGS)

bench: $(VENV)/.has-run ## seconds and memory that a conversion takes on this machine
	$(BIN)/python benchmarks/convert.py $(ARGS)
	$(BIN)/python benchmarks/stages.py

lint: $(VENV)/.has-dev ## ruff check, ruff format --check, mypy
	@status=0; for check in "ruff check ." "ruff format --check ." mypy; do \
		echo "$$check"; $(BIN)/python -m $$check || status=1; \
	done; exit $$status

# The compiled part under sanitizers, for memory, overflow and threads. First the kernels alone against plain loops, then
# the extension, built into build/, under pytest and under odd arguments, both with two Python threads at the end.
# CASES is how many convolutions are drawn, FUZZ how many calls with odd arguments; TESTS names other tests. Other checks:
# `make neon` runs the kernels alone for 64-bit ARM under emulation (Debian: gcc-aarch64-linux-gnu, qemu-user).
CASES ?= 300
FUZZ ?= 1000

sanitize: $(VENV)/.has-test ## the compiled part under sanitizers (CASES=, FUZZ=, TESTS=)
	CASES=$(CASES) sh tests/kernels/check_kernels.sh
	CASES=$(CASES) sh tests/kernels/check_kernels.sh thread
	CASES=20 FUZZ=$(FUZZ) PYTHON=$(CURDIR)/$(BIN)/python sh tests/kernels/check_extension.sh
	PYTHON=$(CURDIR)/$(BIN)/python sh tests/kernels/check_extension.sh thread

neon: ## the kernels for 64-bit ARM under emulation
	CASES=$(CASES) sh tests/kernels/check_kernels.sh aarch64

# One stamp an extra: repeats cost nothing; what changes the installation (or its compiled part) installs again.
$(VENV)/.has-run: $(INSTALLED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.has-%: $(INSTALLED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[$*]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); PyTorch is the bulk of it, a few minutes the first time ..."

clean: ## remove .venv, builds and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
