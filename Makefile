# make demo · make test · make bench · make lint: each builds .venv and installs the package by itself when
# that is missing or older than setup.cfg. Nothing else is needed than python3 >= 3.10 with venv, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := setup.cfg setup.py pyproject.toml $(wildcard binarize/kernels/c/*.[ch])

.PHONY: demo test bench lint sanitize neon clean
.DELETE_ON_ERROR:

# A .venv that was copied here from elsewhere, or whose interpreter is gone, cannot be repaired: start anew.
ifneq ($(wildcard $(VENV)),)
SOUND := grep -qsF "$(CURDIR)/$(VENV)" $(BIN)/activate && $(BIN)/python -m pip --version && echo sound
ifneq ($(lastword $(shell ($(SOUND)) 2>/dev/null)),sound)
$(info $(VENV) is unusable and is made anew)
$(shell rm -rf $(VENV))
endif
endif

demo: $(VENV)/.has-run
	$(BIN)/binarize demo --out results/digits-adabin --force $(ARGS)

test: $(VENV)/.has-test
	$(BIN)/python -m pytest -n 2 $(ARGS)

bench: $(VENV)/.has-run
	$(BIN)/python benchmarks/convert.py $(ARGS)
	$(BIN)/python benchmarks/stages.py

lint: $(VENV)/.has-dev
	@status=0; for check in "ruff check ." "ruff format --check ." mypy; do \
		echo "$$check"; $(BIN)/python -m $$check || status=1; \
	done; exit $$status

# The compiled part under sanitizers, for memory, overflow and threads. First the kernels alone against plain loops, then
# the extension, built into build/, under pytest and under odd arguments, both with two Python threads at the end.
# CASES is how many convolutions are drawn, FUZZ how many calls with odd arguments; TESTS names other tests. Other checks:
# `make neon` runs the kernels alone for 64-bit ARM under emulation (Debian: gcc-aarch64-linux-gnu, qemu-user).
CASES ?= 300
FUZZ ?= 1000

sanitize: $(VENV)/.has-test
	CASES=$(CASES) sh tests/kernels/check_kernels.sh
	CASES=$(CASES) sh tests/kernels/check_kernels.sh thread
	CASES=20 FUZZ=$(FUZZ) PYTHON=$(CURDIR)/$(BIN)/python sh tests/kernels/check_extension.sh
	PYTHON=$(CURDIR)/$(BIN)/python sh tests/kernels/check_extension.sh thread

neon:
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

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
