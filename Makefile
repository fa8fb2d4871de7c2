# make demo    the whole path on a generated sample world; `make demo ARMS=all` adds the control arm
# make test    linters, types and the whole suite
# make real-text  the same path on published text found through IPT_REAL_DATA
# Each installs what it needs into .venv first. PYTHON may name another Python 3.11 or newer.

PYTHON ?= python3.11
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_OFFLINE ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true
# Set in many container images; our own modules would be compiled anew by every process.
unexport PYTHONDONTWRITEBYTECODE
ARMS ?= two
DEMO := $(if $(filter all,$(ARMS)),demo-all,demo)
# Compiled here once: where Python may not write bytecode, every process would compile all it imports anew, for most of a minute.
UV := $(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt --overrides overrides.txt

.PHONY: install demo clean-demo real-text test lint

install: .venv/.installed

# DeepSpeed's build looks at the installed torch, so torch comes first and the build is not isolated from it.
.venv/.installed: pyproject.toml constraints.txt overrides.txt conf/targets/spark-defaults.conf
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there; install Python 3.11 or set PYTHON"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==0.13.8
	$(UV) setuptools wheel ninja hatchling editables torch
	$(UV) --no-build-isolation-package deepspeed --editable '.[local,cpu,dev]'
	home="$$($(BIN)/python -c 'import pyspark; print(pyspark.__path__[0])')"; mkdir -p "$$home/conf" && cp conf/targets/spark-defaults.conf "$$home/conf/"
	@# What the first run would wait for otherwise: Delta's JARs, and an operation that DeepSpeed builds.
	-$(BIN)/python -m jobs.lakehouse.session
	-$(BIN)/python -c "from trainer.distributed import join; join(); import deepspeed; deepspeed.init_distributed()"
	touch $@

demo: install
	ipt run --config $(DEMO)

clean-demo:
	rm -rf runs/demo

real-text: install
	ipt run --config real-text

lint: install
	ruff check .
	ruff format --check .
	mypy

# Two processes; tests that share a Spark session, an engine or a pipeline run stay in one (tests/conftest.py).
test: lint
	pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder
