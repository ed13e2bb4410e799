# make demo: jets, pretraining, probes and a report from nothing. make test: the whole suite. Both build .venv first.

PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO := data/demo

.PHONY: demo test lint types slow clean
.DELETE_ON_ERROR:

# Jets for pretraining, for fitting the probes and for measuring them come from different seeds.
JETS_pretrain := 6000
JETS_fit := 2500
JETS_test := 2500
SEED_pretrain := 1
SEED_fit := 2
SEED_test := 3
STORES := $(foreach part,pretrain fit test,$(foreach process,top qcd,$(DEMO)/$(process)-$(part)/metadata.json))

demo: $(STORES)
	@echo "== pretraining without labels"
	$(BIN)/jetclr pretrain configs/demo.py --workdir runs/demo
	@echo "== linear probes on the frozen encoder, with controls"
	@$(BIN)/jetclr probe runs/demo --train $(DEMO)/top-fit $(DEMO)/qcd-fit \
		--test $(DEMO)/top-test $(DEMO)/qcd-test --json runs/demo/probe.json --overwrite
	@$(BIN)/jetclr report runs/demo --data $(DEMO)/top-test $(DEMO)/qcd-test --overwrite
	@echo "open runs/demo/report.html"

$(STORES): $(DEMO)/%/metadata.json: | $(VENV)/demo
	$(BIN)/jetclr generate --process $(word 1,$(subst -, ,$*)) --jets $(JETS_$(word 2,$(subst -, ,$*))) \
		--seed $(SEED_$(word 2,$(subst -, ,$*))) $(DEMO)/$*

test: $(VENV)/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

slow: $(VENV)/dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs/demo $(DEMO)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "jetclr needs Python 3.11 or newer; none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# An empty file in .venv says which extras are installed.
$(VENV)/demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[generate]'
	@touch $@

$(VENV)/dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[generate,dev]'
	@touch $@ $(VENV)/demo
