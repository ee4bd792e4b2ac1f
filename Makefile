# make reproduce   installs what is needed into .venv, runs every stage afresh, shows the metrics and where the report is,
#                  and compares all results with the committed ones
# make verify      says, without running a stage, whether dvc.lock belongs to what is committed
# make test        installs the same, runs the tests
# make test-all    runs the slow ones as well, which takes an hour or so
# make lint        formatting, lint, types
# make format      puts the formatting right
# make clean       removes the environment, caches and data; what is committed stays
# make schema      writes params.schema.json from the schema in stages/common/params.py
# make pin         pins the newest versions that pyproject.toml allows in requirements.txt
# PYTHON=python3.12 make ...   uses another Python, 3.11 or newer

PYTHON ?= python3
RUN := .venv/bin/python -m
# dvc.yaml's commands find `python` on PATH
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: reproduce verify test test-all lint format schema pin clean

reproduce: .venv/ready
	@$(RUN) dvc repro --force
	@echo
	@$(RUN) dvc metrics show reports/metrics/manual.json reports/metrics/noisy.json reports/metrics/minibatch.json \
		reports/metrics/nn.json reports/metrics/shared.json reports/metrics/logistic.json
	@echo
	@echo "The report: $(CURDIR)/reports/index.html (in a browser), reports/report.md (as text)"
	@$(RUN) tools.compare

verify: .venv/ready
	@$(RUN) tools.verify

test: .venv/ready
	@$(RUN) pytest

schema: .venv/ready
	@.venv/bin/python -c 'import json; from stages.common.params import Params; \
		print(json.dumps(Params.model_json_schema(), indent=2))' > params.schema.json

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

clean:
	rm -rf .venv .tmp dvc_plots .dvc/cache .dvc/tmp .pytest_cache .mypy_cache .ruff_cache
	rm -f data/line.csv data/noisy_line.csv data/plane.csv data/stream.csv data/clusters.csv
	find stages tests -name __pycache__ -type d -prune -exec rm -rf {} +
