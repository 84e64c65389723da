# Every target works on a fresh checkout: the virtual environment is made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two test processes; each keeps to one thread so that they do not fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: quickstart test test-slow test-exhaustive test-all lint bench screenshots clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: $(VENV)/installed
	$(BIN)/tunemill run examples/quickstart/pipeline.yml

test: $(VENV)/installed lint
	$(PYTEST) -m 'not slow'

test-slow: $(VENV)/installed
	$(PYTEST) -m 'slow and not exhaustive'

test-exhaustive: $(VENV)/installed
	$(PYTEST) -m exhaustive

test-all: $(VENV)/installed lint
	$(PYTEST)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python benchmarks/second_run.py
	$(BIN)/python benchmarks/commands.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/tokenizing.py
	$(BIN)/python benchmarks/methods.py
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/python benchmarks/kernels/run.py; \
	else echo "benchmarks/kernels/run.py needs a GPU: not run"; fi

# Pictures of docs/pictures, of the UI and of the report; needs Chromium.
screenshots: $(VENV)/installed
	$(BIN)/python benchmarks/screenshots.py

clean:
	rm -rf $(VENV) .tunemill build dist *.egg-info
