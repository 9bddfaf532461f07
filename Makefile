# make demo    sets up .venv and runs the main job on a sample
# make test    sets up .venv and runs the tests
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint test-slow test-package test-browser test-gpu bench clean

demo: $(READY)
	$(BIN)/reconstruct samples/chelsea.jpg --model crelu_conv1_4 --layer conv1,conv2,conv3,conv4 --output demo
	@echo "Look at demo/chelsea.crelu_conv1_4.comparison.png"

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests that take more than twenty seconds or so.
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# Builds wheels from the tree and from the source distribution; installs one into an empty environment.
test-package: $(READY)
	$(BIN)/python -m pytest -m packaging

# Reports as a reader sees them, in a Chromium that is there already.
test-browser: $(READY)
	@command -v chromium >/dev/null || { echo "make test-browser needs Chromium: apt-get install chromium" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -m browser

# On a machine with an NVIDIA GPU, torch with CUDA and CuPy.
test-gpu:
	$(PYTHON) -m pytest -m gpu

bench: $(READY)
	$(BIN)/python benchmarks/fidelity.py samples/*.jpg --output docs/figures
	$(BIN)/python benchmarks/linear.py samples/*.jpg --output docs/figures
	$(BIN)/python benchmarks/pooling.py samples/*.jpg --output docs/figures

$(READY): pyproject.toml constraints.txt hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reconstruct needs Python 3.11 or newer; make PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,train]'
	@touch $@

clean:
	rm -rf .venv demo dist
