# make demo and make test set up .venv by themselves; see README.md.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# The Python with which runs are started: the environment's, else conda's.
RUNNING := $(or $(wildcard $(BIN)/python),$(PYTHON))
# Processes that run the tests, one more than two cores: some tests wait for kernels. make test
# WORKERS=8 on a larger machine.
WORKERS := 3
READY := $(VENV)/.ready

.PHONY: demo demo-all test test-slow test-tensorflow test-pysaliency lab docs lint lock mutants rehearsal bench demo-data clean

# Each report opens in the browser when it is done; in CI, or without a desktop, its path is printed.
demo: $(READY)
	$(BIN)/python run_all.py --profile gaze demo --open

# The long analyses whole, where the demo takes a smaller sample.
demo-all: $(READY)
	$(BIN)/python run_all.py --profile gaze demo --whole --open

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10 --durations-min=1

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --durations=10

# TensorFlow wants other versions than the study: it gets an environment of its own.
test-tensorflow:
	test -x .venv-tensorflow/bin/python || $(PYTHON) -m venv .venv-tensorflow
	.venv-tensorflow/bin/pip install --quiet --requirement tests/tensorflow/requirements.txt
	.venv-tensorflow/bin/python -m pytest --noconftest -W default -m tensorflow tests/tensorflow

# pysaliency's own build needs a C compiler.
test-pysaliency:
	test -x .venv-pysaliency/bin/python || $(PYTHON) -m venv .venv-pysaliency
	.venv-pysaliency/bin/pip install --quiet --requirement tests/pysaliency/requirements.txt
	.venv-pysaliency/bin/python -m pytest --noconftest -W default -m pysaliency tests/pysaliency

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=.

# The documentation as a site. Its tools get an environment of their own, as they are no part of
# what a run's results depend on.
docs: $(READY)
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --requirement docs/building/requirements.txt
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "The site is built. Open site/index.html in a browser; it needs no server and no network."

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/lint-imports

# The exact versions that the Makefile, environment.yml and CI install.
lock:
	uv pip compile --universal --python-version 3.11 --extra dev --no-emit-index-url \
		--no-header --upgrade pyproject.toml --output-file requirements.lock
	uv pip compile --universal --python-version 3.11 --group docs --no-emit-index-url \
		--no-header --upgrade --output-file docs/building/requirements.txt

# Whether the tests notice wrong formulas: some minutes.
mutants: $(READY)
	$(BIN)/python tests/mutants/run.py

# The full study on stand-ins (random weights, generated images), from the download on.
rehearsal: $(READY)
	$(BIN)/python tests/rehearsal.py

# Speed against the forward alone and against other packages; QUICK=1 ends within three minutes.
bench: $(READY)
	$(BIN)/python tests/bench.py $(if $(QUICK),--quick)

# Makes data/demo/ anew from seeds: about forty minutes on two cores.
demo-data: $(READY)
	$(BIN)/python -m lib.demo
	$(BIN)/python -m lib.demo.attention --methods lcam_fm lcam_img
	$(BIN)/python -m lib.demo.attention --methods lcam_fm_a lcam_img_a --epochs 10
	$(BIN)/python -m lib.demo.tour

# Removes what runs wrote, kept scores included, unless one is at work; keeps the environment, the
# embedded example and downloads.
clean:
	@if $(RUNNING) -c 'import lib.runner.clean' 2>/dev/null; then $(RUNNING) -m lib.runner.clean; \
		else rm -rf data/output data/rehearsal figures/demo* figures/paper* figures/rehearsal*; fi
	rm -rf site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; found $$($(PYTHON) -V). Set PYTHON=…"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
