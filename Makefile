# make reproduce   installs what is needed into .venv, runs every stage afresh, shows the metrics and where the report is,
#                  and compares all results with the committed ones
# make reproduce TORCH=2.15.0   asks whether another version changes a result, of any package in requirements.txt: runs the
#                  last commit with it, in an environment and a clone of their own, and compares
# make verify      says, without running a stage, whether dvc.lock belongs to what is committed
# make test        installs the same, runs the tests
# make test-all    runs the slow ones as well, which takes an hour or so
# make lint        formatting, lint, types
# make format      puts the formatting right
# make reset       brings params.yaml, dvc.lock, data and reports/ back to the last commit; your own CSVs stay
# make bench       times the pipeline in turn with the bare programs, writes docs/benchmarks.md; ten minutes, alone
# make sweep       runs manual with several learning rates and seeds, draws the final losses in sweep/
# make newest      installs the newest releases of all dependencies, whatever is pinned; make clean goes back
# make clean       removes the environment, caches and data; what is committed stays
# make schema      writes params.schema.json from the schema in stages/common/schema.py
# make pin         pins the newest versions that pyproject.toml allows in requirements.txt
# PYTHON=python3.12 make ...   uses another Python, 3.11 or newer
# PIP_EXTRA_INDEX_URL=ADDRESS make ...   takes PyTorch's CPU build, on Linux a tenth in size; the address is that in the
#                  command which PyTorch's page "Get started" shows for CPU. A torch of the right version is left as it is.

PYTHON ?= python3
RUN := .venv/bin/python -m
# dvc.yaml's commands find `python` on PATH
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: reproduce verify test test-all lint format schema pin newest reset bench sweep clean

VERSIONS := $(filter-out PYTHON=% PIP_%,$(MAKEOVERRIDES))
ifeq ($(VERSIONS),)
reproduce: .venv/ready
	@$(RUN) tools.reproduce
	@echo
	@$(RUN) dvc metrics show reports/metrics
	@echo
	@echo "The report: $(CURDIR)/reports/index.html (in a browser), reports/report.md (as text)"
	@$(RUN) tools.compare
else
reproduce:
	@$(PYTHON) -m tools.upgrade $(VERSIONS)
endif

verify: .venv/ready
	@$(RUN) tools.verify

test: .venv/ready
	@$(RUN) pytest

# By way of .tmp/, so that a failure leaves the old file.
schema: .venv/ready
	@mkdir -p .tmp
	@.venv/bin/python -c 'import json; from stages.common.schema import Params; \
		print(json.dumps(Params.model_json_schema(), indent=2))' > .tmp/schema
	@mv .tmp/schema params.schema.json

test-all: .venv/ready
	@$(RUN) pytest -m "slow or not slow"

lint: .venv/ready
	@$(RUN) ruff format --check
	@$(RUN) ruff check
	@$(RUN) mypy

format: .venv/ready
	@$(RUN) ruff format
	@$(RUN) ruff check --fix

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"error: Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; name another: PYTHON=python3.12 make")'
	@echo "Installing the pinned packages into .venv; PyTorch is large, this can take minutes."
	@$(PYTHON) -m venv .venv
	@$(RUN) pip install --quiet --requirement requirements.txt
	@touch $@

# torch's local version (2.13.0+cpu and the like) is cut off, so that every platform finds its own build.
pin: .venv/ready
	@mkdir -p .tmp
	@$(RUN) piptools compile --quiet --upgrade --all-extras --strip-extras --allow-unsafe --no-header --no-emit-options \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file .tmp/requirements.txt pyproject.toml
	@echo "# Every package pinned; made from pyproject.toml by \`make pin\`." > requirements.txt
	@sed 's/^\(torch==[0-9.]*\)+.*/\1/' .tmp/requirements.txt >> requirements.txt

# The names in pyproject.toml without their versions; eager, so that what they need is the newest too.
newest:
	@$(PYTHON) -m venv .venv
	@mkdir -p .tmp
	@$(PYTHON) -c 'import re, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		needed = sum(project["optional-dependencies"].values(), project["dependencies"]); \
		print(*(re.split("[ <=>!~;]", name)[0] for name in needed), sep="\n")' > .tmp/newest.txt
	@$(RUN) pip install --quiet --upgrade --upgrade-strategy eager --requirement .tmp/newest.txt
	@touch .venv/ready

# The index first: an experiment that was killed leaves its params.yaml and DVC's repro.dat staged. DVC last: it needs a
# whole dvc.lock. Data that its cache lacks, as in a fresh clone, are drawn by the next run.
reset:
	@git reset --quiet -- params.yaml dvc.lock .params.ok reports .dvc/tmp
	@git restore -- params.yaml dvc.lock .params.ok reports
	@git clean -dfqx -- reports
	@rm -f data/.*.tmp
	@! test -x .venv/bin/dvc || $(RUN) dvc checkout --quiet --force --allow-missing
	@echo "Back at the last commit: params.yaml, dvc.lock, .params.ok, reports/ and the data that DVC's cache holds."

bench: .venv/ready
	@$(RUN) benchmarks

# make sweep LR=0.1,0.2 SEED=5 sweeps other values
LR := 0.003,0.01,0.03,0.1,0.5,0.78,0.8,0.9
SEED := 1,2
sweep: .venv/ready
	@$(RUN) dvc repro --quiet generate-data@line
	@$(RUN) tools.sweep --lr $(LR) --seed $(SEED)

clean:
	rm -rf .venv .venvs .tmp dvc_plots sweep .dvc/cache .dvc/tmp .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f data/line.csv data/noisy_line.csv data/plane.csv data/stream.csv data/clusters.csv
	find stages tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
