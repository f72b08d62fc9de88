# Mien's commands. Needs GNU Make 3.81 and bash 3.2 or newer, and Python 3.11 to 3.14 (or uv).
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
PHOTOS ?= samples
OUT ?= results.csv
# where `make demo` keeps its database, models and logs
DEMO_DATA ?= .demo
ARGS ?=
export VENV PHOTOS OUT

BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# the demo and the tests are their own: nothing of a Mien that is configured in this shell may reach them
OWN := env -u MIEN_DATABASE_URL -u MIEN_BROKER_URL -u MIEN_MODELS_DIR -u MIEN_URL -u MIEN_API_KEY -u MIEN_ROOTS -u MIEN_DATA_DIR
# two at a time: most tests wait now and then; files stay together because their tests share what runs
PARALLEL ?= -n 2 --dist loadfile
NO_EXTRAS := not torch and not shared and not postgres and not browser and not s3 and not long

.PHONY: help demo up bench bench-long test check torture lint format lock train-demo wheel clean test-lowest

help:
	@echo "make demo                         classify the samples: real model, queue, worker and database; writes results.csv"
	@echo "make demo PHOTOS=folder OUT=f.csv the same with your own photographs"
	@echo "make up                           run Mien with its pages until Ctrl-C"
	@echo "make test                         every test and lint (installs torch; PostgreSQL, Redis and Chromium where they are)"
	@echo "make check                        lint and the tests that need no torch, PostgreSQL, Chromium or shared data, but the longest"
	@echo "make lint | make format           ruff and mypy | let ruff format the code"
	@echo "make torture                      every promise of docs/promises.md in full size, by breaking things on purpose"
	@echo "make fuzz                         hostile input at length: random images, archives, requests (an hour)"
	@echo "make coverage                     every test, and which lines and branches of mien, web and worker they ran"
	@echo "make mutate                       mutation testing of the ledger: a random sample, or all with ARGS='--sample 0'"
	@echo "make audit                        known weaknesses of the packages in the locks (asks the internet)"
	@echo "make train-demo                   train a small model from start to end"
	@echo "make bench | make bench-long      measure beside transformers.pipeline and OpenCV | 100,000 images: memory, database"
	@echo "make lock | make wheel            renew requirements/*.lock | build dist/*.whl"
	@echo "make clean                        delete what these commands made"

# A stamp stands for an environment that holds its lock; nothing is installed again until the lock changes.
$(VENV)/.default.stamp: requirements/default.lock requirements/install.sh pyproject.toml
	@bash requirements/install.sh default
	@touch $@

$(VENV)/.check.stamp: requirements/check.lock requirements/install.sh pyproject.toml
	@bash requirements/install.sh check
	@touch $@ $(VENV)/.default.stamp

$(VENV)/.test.stamp: requirements/test.lock requirements/install.sh pyproject.toml
	@bash requirements/install.sh test
	@touch $@ $(VENV)/.check.stamp $(VENV)/.default.stamp

# Exit code 3 says that some images could not be read; the CSV says which, and the demo has done its work.
demo: $(VENV)/.default.stamp
	@$(OWN) MIEN_DATA_DIR="$(CURDIR)/$(DEMO_DATA)" MIEN_HOST=127.0.0.1 MIEN_PORT=0 \
		$(BIN)/mien classify "$$PHOTOS" --csv "$$OUT" $(ARGS) || [ $$? -eq 3 ]

up: $(VENV)/.default.stamp
	@$(BIN)/mien up $(ARGS)

test: $(VENV)/.test.stamp lint-test
	@$(OWN) $(PYTEST) $(PARALLEL) $(ARGS)

check: $(VENV)/.check.stamp lint-check
	@$(OWN) $(PYTEST) -n 4 --dist loadfile -m "$(NO_EXTRAS)" $(ARGS)

# Both ways to run Mien side by side; ARGS="--only 1,8 --way production --short --write docs/promises.md".
torture: $(VENV)/.test.stamp
	@$(OWN) $(BIN)/python -m tests.reliability.torture $(ARGS)

# the property-based tests with thousands of random examples each, and archives of a million entries: about an hour
.PHONY: fuzz
fuzz: $(VENV)/.check.stamp
	@$(OWN) $(PYTEST) --hypothesis-profile=long --timeout=3600 $(ARGS) tests/unit/mien/test_properties.py \
		tests/unit/mien/test_hostile_archives.py tests/unit/mien/test_hostile_images.py tests/unit/web/test_api_properties.py

# Known weaknesses of what is installed, from the Python Packaging Advisory Database: needs the internet.
.PHONY: audit
audit: $(VENV)/.check.stamp
	@command -v uv >/dev/null || { echo "make audit needs uv: https://docs.astral.sh/uv"; exit 1; }
	@for lock in default cuda check test; do uvx pip-audit --disable-pip --no-deps -r requirements/$$lock.lock || exit 1; done

# Narrower: make coverage ARGS=tests/unit, with TOO_FEW=0 so that its share fails nothing.
.PHONY: coverage
TOO_FEW ?= 90
coverage: $(VENV)/.test.stamp
	@rm -f .coverage .coverage.*
	@$(OWN) $(BIN)/python -m coverage run -m pytest $(PARALLEL) $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report --fail-under=$(TOO_FEW)

# tests/mutation.py says what is drawn; it works in mutants/, which git ignores.
.PHONY: mutate
MUTMUT := mutmut>=3.8,<4
mutate: $(VENV)/.check.stamp
	@$(BIN)/python -c 'import mutmut' 2>/dev/null || $(BIN)/python -m pip install --quiet '$(MUTMUT)'
	@$(OWN) $(BIN)/python -m tests.mutation $(ARGS)

BANDIT := $(BIN)/bandit -q -c pyproject.toml --severity-level medium -r cli mien training web worker

TORCHLESS := --no-warn-return-any --no-warn-unused-ignores -p mien -p cli -p web -p worker

.PHONY: lint-test lint-check
lint-test: $(VENV)/.test.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BANDIT) & bandit=$$!; $(BIN)/mypy && wait $$bandit

# without torch the training code cannot be judged, nor what comes out of torch's functions elsewhere
lint-check: $(VENV)/.check.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BANDIT) & bandit=$$!; \
		if $(BIN)/python -c 'import torch' 2>/dev/null; then $(BIN)/mypy; \
		else $(BIN)/mypy $(TORCHLESS) && echo "(training/ is checked where torch is installed: make test)"; fi && wait $$bandit

lint: lint-check

format: $(VENV)/.check.stamp
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

train-demo: $(VENV)/.test.stamp
	@$(OWN) MIEN_DATA_DIR="$(CURDIR)/$(DEMO_DATA)" $(BIN)/mien train-demo $(ARGS)

# Exact versions for every Python and platform at once. torch and what comes with it (gigabytes of CUDA on Linux) are
# left out: requirements/install.sh installs the build of torch that fits the machine. Releases have to be a week old:
# mirrors lag behind, and a release that has to be taken back is taken back soon.
WEEK_AGO = $(shell date -u -d '-7 days' +%Y-%m-%d 2>/dev/null || date -u -v-7d +%Y-%m-%d)
LOCK = uv pip compile --quiet --exclude-newer $(WEEK_AGO) --universal --python-version 3.11 --only-binary :all: --no-annotate --no-header \
	--no-emit-package mien --no-emit-package torch --no-emit-package torchvision --no-emit-package triton \
	--no-emit-package pytorch-triton --upgrade pyproject.toml

lock:
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv"; exit 1; }
	@$(LOCK) --group build -o requirements/default.lock
	@$(LOCK) --extra cuda -c requirements/default.lock -o requirements/cuda.lock
	@$(LOCK) --group check -c requirements/default.lock -o requirements/check.lock
	@$(LOCK) --group test --extra training -c requirements/check.lock -o requirements/test.lock
	@for lock in cuda test; do \
		sed -i.old -E '/^(nvidia|cuda)-/d' requirements/$$lock.lock && rm -f requirements/$$lock.lock.old; done

# The declared lower bounds, tried: an environment of its own with exactly those versions, and the tests on it.
test-lowest:
	@command -v uv >/dev/null || { echo "make test-lowest needs uv"; exit 1; }
	@uv venv --quiet --clear --python 3.11 .venv-lowest
	@uv pip compile --quiet --python-version 3.11 --resolution lowest-direct --only-binary :all: --no-emit-package mien \
		--group check pyproject.toml -o .venv-lowest/lowest.lock
	@uv pip install --quiet --python .venv-lowest/bin/python --only-binary :all: -r .venv-lowest/lowest.lock
	@uv pip install --quiet --python .venv-lowest/bin/python --no-deps --no-build-isolation -e .
	@$(OWN) .venv-lowest/bin/python -m pytest -m "$(NO_EXTRAS)" $(ARGS)

# The peers need torch (make test installs it) and OpenCV; random weights of two sizes are made and kept in .bench.
BENCH_PHOTOS ?= $(or $(wildcard ../shared/photos),samples)
BENCH_YUNET ?= ../shared/models/yunet/face_detection_yunet_2023mar.onnx

bench: $(VENV)/.test.stamp
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps '$(OPENCV)'
	@$(OWN) $(BIN)/python -m benchmarks.cpu --photos "$(BENCH_PHOTOS)" --yunet "$(BENCH_YUNET)" --write docs/benchmarks.md $(ARGS)

bench-long: $(VENV)/.test.stamp
	@$(OWN) $(BIN)/python -m benchmarks.long --photos "$(BENCH_PHOTOS)" --write docs/benchmarks.md $(ARGS)

OPENCV := opencv-python-headless>=4.12,<5

wheel: $(VENV)/.check.stamp
	@rm -rf dist build
	@$(BIN)/python -m hatchling build -t wheel

clean:
	@rm -rf $(VENV) .venv-lowest $(DEMO_DATA) dist build .mypy_cache .ruff_cache .pytest_cache .coverage .coverage.* mutants
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
