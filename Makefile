# make demo    sets up .venv and runs the main job on a sample
# make test    sets up .venv and runs the tests
PYTHON ?= python3
# Where the packages are installed: optional ones into the same folder, as a target asks for them.
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint test-slow test-package test-ray test-browser test-app test-extras test-gpu fuzz docs examples bench bench-peers paper clean

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

# Evaluation on several processes; installs Ray.
test-ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -m ray

# The page of an evaluation in a real browser; needs Chromium (Debian: apt-get install chromium).
test-browser: $(READY)
	@command -v chromium >/dev/null || { echo "make test-browser needs chromium (Debian: apt-get install chromium)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -m browser

# The interactive page in a real browser; needs Chromium.
test-app: $(READY)
	@command -v chromium >/dev/null || { echo "make test-app needs chromium (Debian: apt-get install chromium)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[app,browser]'
	$(BIN)/python -m pytest -m app

# What needs optional packages; installs them.
test-extras: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[app,docs,onnx,deepinv,heic]'
	$(BIN)/python -m pytest -m extras

# Ten thousand hostile files of every kind that is read here; of ONNX where its package is installed.
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz

# The documentation as a site, in site/; a link that leads nowhere is an error.
docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

# The scripts of examples/, their pictures and docs/examples.md.
examples: $(READY)
	$(BIN)/python docs/examples.py

# On a machine with an NVIDIA GPU, torch with CUDA and CuPy.
test-gpu:
	$(PYTHON) -m pytest -m gpu

bench: $(READY)
	$(BIN)/python benchmarks/fidelity.py samples/*.jpg --output docs/figures
	$(BIN)/python benchmarks/linear.py samples/*.jpg --output docs/figures
	$(BIN)/python benchmarks/pooling.py samples/*.jpg --output docs/figures
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	$(BIN)/python benchmarks/evaluation.py samples/*.jpg --output docs/figures

# Us and others on the same features, into docs/performance.md.
bench-peers: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pylops -e '.[deepinv]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt bdpy
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/peers.py samples/chelsea.jpg --output docs/performance.md

# The commands of docs/paper.md, into paper/; the figures that it shows are copied to docs. PHOTOGRAPHS: pictures for the
# invariance scores; those of docs are 46 that recipes/photographs.py holds out.
PHOTOGRAPHS ?= samples
ANALYZE := $(BIN)/reconstruct analyze
LARGE := --model crelu_conv1_4,all_cnn_b --output paper/large
SMALL := --model convpool_cnn_c_crelu,convpool_cnn_c --output paper/small
CIFAR_LAYERS := conv1,conv2,conv3,pool1,conv4,conv5,conv6,pool2,conv7,conv8
SHOWN := large/crelu_conv1_4.conv1.pairs large/all_cnn_b.conv1.pairs large/crelu_conv1_4.conv3.pairs large/pairs small/pairs \
	large/correlation small/correlation large/complexity large/invariance small/invariance \
	chelsea.crelu_conv1_4.conv1.rectify chelsea.crelu_conv1_4.conv3.rectify chelsea.crelu_conv1_4.spectrum \
	shades/chelsea.crelu_conv1_4.conv1.rectify \
	spectrum.series spectrum.example spectrum.networks spectrum.pulse.block1_relu3 spectrum.pulse.layers spectrum.training \
	spectrum.dc
paper: $(READY)
	$(ANALYZE) pairs $(LARGE)
	$(ANALYZE) pairs $(SMALL)
	$(ANALYZE) correlation $(LARGE)
	$(ANALYZE) correlation $(SMALL)
	$(ANALYZE) complexity $(LARGE)
	$(ANALYZE) invariance $(PHOTOGRAPHS) $(LARGE)
	$(ANALYZE) invariance $(PHOTOGRAPHS) $(SMALL) --layer $(CIFAR_LAYERS)
	$(ANALYZE) rectify samples/chelsea.jpg --model crelu_conv1_4 --layer conv1,conv3 --output paper
	$(ANALYZE) rectify samples/chelsea.jpg --model crelu_conv1_4 --layer conv1 --shades --output paper/shades
	$(ANALYZE) spectrum --output paper
	$(ANALYZE) spectrum samples/chelsea.jpg --model crelu_conv1_4 --layer conv1,conv2,conv3,conv4 --output paper
	mkdir -p docs/figures/paper
	for name in $(SHOWN); do cp paper/$$name.png docs/figures/paper/$$(echo $$name | tr / .).png; done

$(READY): pyproject.toml constraints.txt hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reconstruct needs Python 3.11 or newer; make PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,train]'
	@touch $@

clean:
	rm -rf .venv .venv-all demo dist paper site
