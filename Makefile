# Two commands do everything: `make train` and `make test`. Each sets up what it needs by itself.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: setup train test test-all test-browser lint bench bench-memory docs clean
setup: $(VENV)/.core

# torch comes first and alone: the pinned build must be there before any package that depends on it.
$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "resnetkit needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) --editable ".[test,lint]"
	touch $@

$(VENV)/.browser: $(VENV)/.test
	command -v chromium || apt-get install --yes chromium
	$(PIP) --editable ".[browser]"
	touch $@

# The peers' environment reads the packages of $(VENV), torch among them, and adds timm and torchvision.
$(PEERS)/.ready: $(VENV)/.test
	$(PYTHON) -m venv $(PEERS)
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> "$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/resnetkit.pth"
	$(PEERS)/bin/pip install --quiet --constraint constraints.txt timm torchvision
	touch $@

train: setup
	$(BIN)/resnet train digits

# A process for each core, up to what fits in memory, with a thread each; a file's tests share what it has trained.
test: $(VENV)/.test $(PEERS)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
	$(PEERS)/bin/python -m pytest -m "peers and not slow"

test-all: test
	$(BIN)/python -m pytest -m slow

test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest -m browser

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(PEERS)/.ready
	$(BIN)/python benchmarks/speed.py; speed=$$?; \
	$(BIN)/python benchmarks/first_step.py && $(BIN)/python benchmarks/stages.py resnet50 && \
	$(BIN)/python benchmarks/growth.py && exit $$speed

bench-memory: $(VENV)/.test
	$(BIN)/python benchmarks/memory.py

docs: $(VENV)/.test
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(PEERS)
