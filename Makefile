# Everything this repository does, by name. `make` alone lists it.

# Settings, each of which can be given on the command line:
#   make book PYTHON=python3.12
#   make book PIP_ARGS="--index-url ..."     any option of pip install
#   make test PYTEST_ARGS="-x -k attention"  any option of pytest
PYTHON      ?= python3
PIP_ARGS    ?=
PYTEST_ARGS ?=
PORT        ?= 8000

VENV := .venv
DEV  := .venv-dev
PY   := $(VENV)/bin/python
DPY  := $(DEV)/bin/python
HTML := build/en/_build/html

export PYTHONPATH := $(CURDIR)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Older pips build some packages in a way that no longer works.
export PIP_USE_PEP517 := 1

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help env dev-env book serve lab test lint notebooks exercises mistakes mutants mutation pins clean clean-env

help:  ## list these commands
	@echo "bertlearn: understand BERT by building it. What make can do here:"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Start with: make book, then make serve"

# ---------------------------------------------------------------- environments
# An environment is remade when its Python no longer runs, and brought up to date when what it was
# made from differs from what is asked now. Otherwise it is left alone: that takes no time.
# Of what pip says, the large downloads, and everything once there is an error.
BRIEFLY := awk '/^ *Downloading .*[0-9] [MG]B\)/ {print "  " $$1, $$2, $$3, $$4; fflush()} /ERROR/ {all = 1} all'

define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
	  echo "Name another one: make $(or $(firstword $(MAKECMDGOALS)),book) PYTHON=python3.11" >&2; exit 1; }
	@asked=$$({ pwd; cat $(2) constraints.txt pyproject.toml; } | cksum); \
	healthy() { $(1)/bin/python -c 'import pip' 2>/dev/null; }; \
	if healthy && [ "$$(cat $(1)/.made-from 2>/dev/null)" = "$$asked" ]; then exit 0; fi; \
	if ! healthy || ! grep -qsxF "$$(pwd)" $(1)/.made-in; then \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make environments: its venv module is missing (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 1; }; \
	  echo "Making $(1) with $$($(PYTHON) --version)"; \
	  rm -rf $(1); $(PYTHON) -m venv $(1); pwd > $(1)/.made-in; \
	fi; \
	echo "Installing $(firstword $(2)) into $(1) (a few minutes the first time)"; \
	$(1)/bin/python -m pip install --progress-bar off $(PIP_ARGS) -r $(firstword $(2)) 2>&1 | $(BRIEFLY); \
	$(1)/bin/python -m pip install --progress-bar off $(PIP_ARGS) --no-deps -e . 2>&1 | $(BRIEFLY); \
	echo "$$asked" > $(1)/.made-from
endef

env:
	$(call environment,$(VENV),requirements.txt)

dev-env:
	$(call environment,$(DEV),requirements-dev.txt requirements.txt)

# ---------------------------------------------------------------- reading and working
build_book = $(1)/bin/jupyter-book build . --toc book/_toc.yml --path-output $(2) -q -W -n --keep-going

# Built into an empty folder, so that no page of an earlier build is left over, and only if anything
# that goes into it has changed since.
INTO_BOOK := book chapters exercises solutions bertlearn _config.yml requirements.txt constraints.txt Makefile

book: env  ## build the book from the outputs committed with the notebooks
	@from=$$(find $(INTO_BOOK) -type f -not -path '*/.*' -not -name '*.pyc' | LC_ALL=C sort | xargs cksum | cksum); \
	if [ "$$(cat build/en/made-from 2>/dev/null)" != "$$from" ]; then \
	  echo "Building the book"; rm -rf build/en; mkdir -p build; \
	  $(call build_book,$(VENV),build/en) > build/book.log 2>&1 || { \
	    cat build/book.log >&2; echo "The book was not built." >&2; exit 1; }; \
	  echo "$$from" > build/en/made-from; \
	fi
	@echo "The book is in $(HTML)/index.html"
	@echo "Open that file, or serve it: make serve"

serve:  ## serve the built book on this machine (PORT=8000)
	@test -f $(HTML)/index.html || { echo "There is no book yet: make book" >&2; exit 1; }
	@echo "http://localhost:$(PORT)  (Ctrl-C stops it)"
	@$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory $(HTML)

lab: env  ## open the chapters in Jupyter Lab
	@$(PY) -m jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/chapters

# ---------------------------------------------------------------- making
notebooks: dev-env  ## run chapters and solutions again and save their outputs (NB=path/to/one.ipynb)
	@$(DPY) -m bertlearn.engine.notebooks $(NB)

exercises: dev-env  ## make exercises/ again from solutions/
	@$(DPY) -m bertlearn exercises build

mistakes: dev-env  ## make the page of common mistakes again from tests/known_wrong
	@$(DPY) -m tests.known_wrong

pins: dev-env  ## write the versions now in .venv-dev into constraints.txt
	@{ sed -n '/^#/p;/^#/!q' constraints.txt; $(DPY) -m pip freeze --exclude-editable | grep -v '^bertlearn==' | sed 's/+cpu$$//' | sort -f; } > constraints.new
	@mv constraints.new constraints.txt

# ---------------------------------------------------------------- proving
mutants: dev-env  ## ask the judge about every known wrong and right answer (a table; a few minutes)
	@$(DPY) -m tests.mutants $(NB)

mutation: dev-env  ## judge every small change to every answer that has changed (a few minutes)
	@$(DPY) -m tests.mutation $(NB)

LINT := $(DPY) -m ruff check -q . && $(DPY) -m ruff format -q --check . && $(DPY) -m mypy

lint: dev-env  ## style and types
	@$(LINT)

# The whole proof in one session of pytest, in the order that conftest.py gives: the package, the
# checks, the notebooks, the exercises and their grading, the book, the browser. The book is built
# once, before, and every step runs whatever the ones before it found.
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 120 --nbval-sanitize-with tests/nbval_sanitize.cfg

test: dev-env  ## prove all of it: lint, package, checks, notebooks, grading, book, browser
	@start=$$SECONDS; failed=; \
	echo "== lint and types"; { $(LINT); } || failed+=" lint"; \
	echo "== book, warnings as errors, into an empty folder"; \
	rm -rf build/test && mkdir -p build; \
	if $(call build_book,$(DEV),build/test) > build/test.log 2>&1; \
	then export BERTLEARN_BUILT_BOOK=$(CURDIR)/build/test/_build/html; \
	else cat build/test.log; failed+=" book"; fi; \
	echo "== text and weights that the notebooks read"; \
	$(DPY) -m bertlearn data fetch --all || failed+=" data"; \
	echo "== tests"; \
	$(DPY) -m pytest $(NBVAL) $(PYTEST_ARGS) tests chapters solutions || failed+=" tests"; \
	seconds=$$((SECONDS - start)); \
	if [ -n "$$failed" ]; then echo "make test: FAILED after $$seconds s:$$failed" >&2; exit 1; fi; \
	echo "make test: everything passed in $$seconds s"

clean:  ## remove what was built (not the environments, not my/)
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
