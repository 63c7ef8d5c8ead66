# From a bare machine (Python 3.11 or 3.12, g++, make, a package index) to a result in one command.

VENV ?= .venv
# The first of these that is 3.11 or 3.12 makes the environment; PYTHON=... names another.
PYTHON ?= python3 python3.12 python3.11
# Test processes side by side; each gets one thread.
JOBS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
QUICKSTART := $(BIN)/python examples/quickstart.py
DEMO_LM := $(BIN)/python examples/demo_lm.py
DEMO_DDS := $(BIN)/python examples/demo_dds.py
DEMO_ST := $(BIN)/python examples/demo_st.py
DEMO_RECIPE := $(BIN)/python examples/demo_recipe.py

.PHONY: help venv quickstart demo-lm demo-dds demo-st demo-recipe bench test test-slurm test-wheel lint format clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart  build a datastore and translate with it, on a small model, on this machine"
	@echo "make demo-lm     the same with a language model: kNN-LM and RetoMaton, perplexity and speed"
	@echo "make demo-dds    eight languages to English: how much to sample each, fixed or learned (MultiDDS)"
	@echo "make demo-st     Czech speech to English text: a student learns from an expert in text (ImitKD)"
	@echo "make demo-recipe  English to French from nothing but sentence pairs: a trained model, step by step"
	@echo "make bench       measure speed, memory and recall; writes docs/benchmarks.md (about two hours on 2 cores)"
	@echo "make test        lint, then all tests"
	@echo "make test-slurm  the job scripts under a real Slurm, on this machine (Debian, Ubuntu: nothing is installed)"
	@echo "make test-wheel  the job scripts with a wheel in a clean environment (12 GB for some minutes, then nothing)"
	@echo "make lint        ruff and mypy"
	@echo "make format      let ruff lay out the code and mend what it can"
	@echo "make venv        only the set-up, which the others do themselves: $(VENV), 7 GB, some minutes"
	@echo "make clean       remove caches and build folders"
	@echo "make distclean   remove $(VENV) too"
	@echo
	@echo "PYTHON=/path/to/python3.11  the interpreter to make $(VENV) with (3.11 or 3.12)"
	@echo "PYTEST_ARGS='-k name -x'    more arguments for pytest;  JOBS=$(JOBS)  test processes"
	@echo "BENCH_ARGS='--rounds 9'     arguments for the benchmarks (--help lists them)"

venv: $(VENV)/.ready

# The version is part of what is installed.
$(VENV)/.ready: pyproject.toml setup.py fairseq_knn/version.py tools/set_up.sh
	@tools/set_up.sh $(VENV) $(PYTHON)

quickstart: venv
	$(QUICKSTART)

demo-lm: venv
	$(DEMO_LM)

demo-dds: venv
	$(DEMO_DDS)

demo-st: venv
	$(DEMO_ST)

demo-recipe: venv
	$(DEMO_RECIPE)

bench: venv
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 10 $(PYTEST_ARGS)

test-slurm: venv
	$(BIN)/python -m tests.slurm

test-wheel: venv
	$(BIN)/python -m tests.wheel

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find fairseq_knn tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
