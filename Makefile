# The two commands a fresh machine needs are `make demo` and `make test`; `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_FLAGS ?=
CPU_TORCH ?= https://download.pytorch.org/whl/cpu
EXTRAS := saliency,duckdb,s3,captum,lightning,transformers,tensorboard,test

.PHONY: help demo test check walks mutants coverage lint types format docs pictures bench gpu release-check clean
.DEFAULT_GOAL := help

help: ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

INSTALL := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.torch
	$(INSTALL) -e ".[$(EXTRAS)]"
	touch $@

# What the demo needs is a part of that: it is installed alone where the rest is not there.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.torch
	test -e $(VENV)/.installed || $(INSTALL) -e ".[saliency]"
	touch $@

# On Linux, PyPI's torch brings CUDA, several GB. Without an NVIDIA driver the CPU's is taken, a tenth of that, where its
# index can be reached; CPU_TORCH= (empty) takes PyPI's, CPU_TORCH=URL another index.
$(VENV)/.torch:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -z "$(CPU_TORCH)" || test "$$(uname -s)" != Linux || command -v nvidia-smi > /dev/null \
		|| $(INSTALL) --index-url "$(CPU_TORCH)" --retries 1 --timeout 15 torch 2> /dev/null \
		|| echo "no torch for the CPU from $(CPU_TORCH): pip's own index is asked"
	touch $@

demo: $(VENV)/.demo ## set up what it needs, train on the sample digits and write all three reports
	rm -rf runs/demo
	$(BIN)/xai demo runs/demo
	@echo; echo "The reports:"; ls $(CURDIR)/runs/demo/reports/*.html

test: lint types check ## set up and run everything that must pass

check: $(VENV)/.installed ## run the tests
	$(BIN)/pytest -q -n 2 --dist loadfile

walks: $(VENV)/.installed ## ask every command with every option as a default and every file that it reads (minutes)
	XAI_TEST_WALKS=1 $(BIN)/pytest -q -n 2 --dist load tests/cli/test_defaults.py tests/cli/test_options.py

mutants: $(VENV)/.installed ## plant small faults, 15 a room, and say which the tests find (hours; MUTANTS="wal -n 5" for less)
	$(BIN)/python tests/mutants.py $(MUTANTS)

lint: $(VENV)/.installed ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed ## check types, the public API's with basedpyright too where that is installed
	$(BIN)/mypy
	$(BIN)/mypy tests/typed_api.py
	! test -x $(BIN)/basedpyright || $(BIN)/basedpyright --pythonpath $(BIN)/python --level error tests/typed_api.py

coverage: $(VENV)/.installed ## run the tests and say which lines of the package none of them runs (longer than check)
	$(BIN)/coverage erase
	$(BIN)/coverage run --parallel-mode -m pytest -q
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered --sort=cover

format: $(VENV)/.installed ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An environment of its own: trackio wants an older pillow than the rest.
$(VENV)-bench/.installed: pyproject.toml constraints.txt
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	grep -v '^pillow==' constraints.txt > $(VENV)-bench/constraints.txt
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c $(VENV)-bench/constraints.txt \
		-e ".[saliency,duckdb,captum,lightning,transformers,bench]"
	touch $@

bench: $(VENV)-bench/.installed ## run every benchmark beside its peers and write benchmarks/RESULTS.md (about half an hour)
	$(VENV)-bench/bin/python benchmarks/results.py

# With whatever torch there is, without a network: the environment of this folder where there is one, else PYTHON.
gpu: ## test and measure on a CUDA device (four minutes), with what is installed; says so where there is none
	@python="$(BIN)/python"; test -x "$$python" || python="$(PYTHON)"; "$$python" benchmarks/gpu.py --write

docs: $(VENV)/.installed ## write docs/commands.md and the man page from the help
	$(BIN)/python docs/make_commands.py

pictures: $(VENV)/.installed ## write docs/images from the demo's pages; needs Chromium
	$(BIN)/python docs/make_pictures.py

release-check: $(VENV)/.installed ## build wheel and sdist, install into an empty environment, try the README there
	rm -rf dist build/release
	$(BIN)/hatchling build
	$(PYTHON) -m venv build/release
	build/release/bin/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt dist/*.whl
	cd build/release && bin/xai samples ../../sample_data/run --json | bin/python -m json.tool > samples.json
	build/release/bin/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt "$$(echo dist/*.whl)[saliency]"
	cd build/release && bin/xai demo && bin/xai track-report runs/demo/ && bin/xai saliency --model ckpt.pt --samples 16 \
		&& bin/xai labels --bounds std,range

clean: ## remove what the targets made
	rm -rf $(VENV) $(VENV)-bench runs build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
