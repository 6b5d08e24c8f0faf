# `make` alone prints this help. Every target sets up what it needs, once.
.DEFAULT_GOAL := help
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: help setup demo train test lint clean

help:  ## Print this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: .venv/.captioner  ## Make .venv and install what the lock names

demo: .venv/.captioner  ## Fine-tune the shipped tiny model on drawn pictures, score it, show captions
	$(RUN) train.py experiment=demo

train: .venv/.captioner  ## Fine-tune on Flickr: make train ARGS="datamodule.data_dir=<folder>"
	$(RUN) train.py $(ARGS)

test: .venv/.captioner-dev  ## Run the tests, offline
	$(RUN) -m pytest -q $(ARGS)

lint: .venv/.captioner-dev  ## Check format, style and types
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy

clean:  ## Remove .venv and the tools that made it
	rm -rf .venv .poetry

.venv/.captioner: poetry.lock
	$(PYTHON) scripts/install.py
	@touch $@

.venv/.captioner-dev: poetry.lock
	$(PYTHON) scripts/install.py --all-extras --all-groups
	@touch $@ .venv/.captioner
