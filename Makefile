# Two commands are enough: `make demo` and `make test`. Everything lands in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A stamp for each set of packages; a newer pyproject.toml or constraints.txt installs again.
BASE := $(VENV)/.base
TEST := $(VENV)/.test
LAB := $(VENV)/.lab
PIP := $(BIN)/pip --disable-pip-version-check install --constraint constraints.txt
# pip talks for a hundred lines; one line that moves is enough. Errors go to the screen as they are.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
BRIEFLY := | while read -r first second rest; do case "$$first $$second" in \
  Collecting*|Installing*) [ -t 1 ] && printf '\r\033[K  %s %s' "$$first" "$$second" ;; esac; done; \
  state=$${PIPESTATUS[0]}; [ -t 1 ] && printf '\r\033[K'; exit $$state

.PHONY: demo test lint lab check-data browser constraints clean help

help:
	@echo "make demo         install, run one week on the bundled demo workspace, print the report's path"
	@echo "make test         install the test needs, run the tests"
	@echo "make lint         formatting, types and the direction of imports"
	@echo "make lab          JupyterLab on the notebooks, with the demo workspace set"
	@echo "make constraints  resolve the pins again (needs python3.10 to python3.13)"
	@echo "make clean        remove .venv and everything made by runs in workspaces/demo and reports/demo"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; $(PYTHON) is older. Name another: make demo PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv module is missing. On Debian: apt install python3-venv" >&2; exit 1; }

$(BASE): $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing the workbench into $(VENV) (about two minutes the first time) ..."
	@$(PIP) --editable . $(BRIEFLY)
	@touch $@

$(TEST): $(BASE)
	@echo "Installing the test needs ..."
	@$(PIP) --editable '.[test]' $(BRIEFLY)
	@touch $@

$(LAB): $(BASE)
	@echo "Installing JupyterLab ..."
	@$(PIP) --editable '.[lab]' $(BRIEFLY)
	@touch $@

demo: $(BASE)
	@$(BIN)/workbench demo

test: $(TEST)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lab: $(LAB)
	@$(BIN)/workbench lab

constraints:
	$(PYTHON) .ci/constraints.py python3.10 python3.11 python3.12 python3.13

clean:
	rm -rf $(VENV) workspaces/demo reports/demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
