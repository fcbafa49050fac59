# make demo: install what is needed, run the demo.  make test: install what tests need, run them.
# A second run installs nothing.  VENV=... puts the virtual environment somewhere else.
VENV ?= .venv
PYTHON ?= python3
OUT ?= demo-results
BIN := $(VENV)/bin

.PHONY: demo test bench clean

demo: $(VENV)/.installed-demo
	$(BIN)/featstore demo --out $(OUT)
	@echo "Results: $(abspath $(OUT))"

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n auto

bench: $(VENV)/.installed-dev
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m tests.benchmarks

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info

$(VENV)/.installed-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[$*]'
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
