# `make` alone prints this help. Every target sets up what it needs, once.
.DEFAULT_GOAL := help
PYTHON ?= python3
RUN := .venv/bin/python
SPREAD := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder # a worker per core takes about 1.5 GB

.PHONY: help setup demo train app tensorboard notebook test lint audit clean

help:  ## Print this help
	@echo "Targets; each sets up .venv by itself. PYTHON=python3.12 chooses the Python it is made with."
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: .venv/.captioner  ## Make .venv and install what the lock names: make setup EXTRAS="app onnx" adds these
	$(if $(EXTRAS),$(PYTHON) scripts/install.py --only main $(foreach extra,$(EXTRAS),--extras $(extra)),@:)

demo: .venv/.captioner  ## Fine-tune the shipped tiny model on synthetic images: two or three minutes, no download
	@$(RUN) train.py experiment=demo $(ARGS)

train: .venv/.captioner  ## Fine-tune: make train ARGS="datamodule=folder datamodule.data_dir=FOLDER"
	$(RUN) train.py $(ARGS)

app: .venv/.captioner  ## Open a page with the newest run: make app ARGS="checkpoint=RUN"
	@$(RUN) -c "import gradio" 2>/dev/null || $(PYTHON) scripts/install.py --only main --extras app
	$(RUN) -m src.app $(ARGS)

tensorboard: .venv/.captioner  ## Look at the curves of all runs
	$(RUN) -m tensorboard.main --logdir logs $(ARGS)

notebook: .venv/.captioner-dev  ## Open the notebook of a finished run
	$(RUN) -m jupyterlab demo.ipynb $(ARGS)

test: .venv/.captioner-dev  ## Run the tests, offline: make test ARGS="-k packing" runs some
	$(RUN) -m pytest -q $(if $(ARGS),$(ARGS),$(SPREAD))

lint: .venv/.captioner-dev  ## Check format, style, spelling and types
	$(RUN) -m ruff format --check . && $(RUN) -m ruff check . && $(RUN) -m codespell_lib && $(RUN) -m mypy

audit: .venv/.captioner-dev  ## Look the locked packages up among known vulnerabilities
	$(RUN) scripts/audit.py

clean:  ## Remove .venv and the tools that made it
	rm -rf .venv .poetry

.venv/.captioner: poetry.lock
	$(PYTHON) scripts/install.py
	@touch $@

.venv/.captioner-dev: poetry.lock
	$(PYTHON) scripts/install.py --all-extras --all-groups
	@touch $@ .venv/.captioner
