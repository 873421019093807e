# make demo   set everything up, train a 3-D CLIP, measure its gap, draw its sphere
# make test   set everything up, run the tests
# make lint   set everything up, run ruff and mypy
# make docs   set everything up, build the documentation: docs/_build/html/index.html
# make claims  write what the report in reports/openmoji says into the README and the documentation
# make faults   kill commands, workers and ranks, fill their disks, and resume them
# make simulations   reported errors, nulls and p-values beside simulated ones: reports/simulations

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready

# Dozens of processes import torch here: what Python compiles for one, it keeps for the next.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint docs claims benchmark faults simulations clean

demo: $(READY)
	@mkdir -p demo
	cd demo && $(BIN)/geomkit train --loss cua --dim 3 --resume
	cd demo && $(BIN)/geomkit gap ckpt.pt
	cd demo && $(BIN)/geomkit plot-sphere --out sphere.png --html sphere.html --overwrite
	@echo "the stages of training: $(CURDIR)/demo/sphere.png"
	@echo "to turn in a browser:   $(CURDIR)/demo/sphere.html"

# A worker a core, so a thread a worker: toy models on several threads only wait for one another.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS_READY)
	$(BIN)/python -m sphinx -n -W --keep-going -q -j auto -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "the documentation: $(CURDIR)/docs/_build/html/index.html"

claims: $(READY)
	$(BIN)/python docs/claims.py

benchmark: $(READY)
	$(BIN)/python -m pytest tests/benchmarks --override-ini addopts= --benchmark-only

faults: $(READY)
	$(BIN)/python tests/faults/kills.py
	$(BIN)/python tests/faults/ranks.py

simulations: $(READY)
	$(BIN)/python tests/simulations/errors.py --datasets 300 --out reports/simulations

# uv resolves and fetches in seconds what pip takes minutes for; pip serves where uv is not to be had.
define install
	@if [ -x $(BIN)/uv ]; then \
	  echo "$(BIN)/uv pip install -c constraints.txt -e .[$(1)]"; \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(1)]'; \
	else \
	  echo "$(BIN)/pip install -c constraints.txt -e .[$(1)]"; \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(1)]'; \
	fi
	@touch $@
endef

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "geomkit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
	$(call install,test)

$(DOCS_READY): $(READY)
	$(call install,docs)

clean:
	rm -rf $(VENV) demo build docs/_build docs/generated *.egg-info
