# The verbs that a user types; `make` alone lists them.
# Variables: PAIR= STUDY= DATA= ARGS= (more options of `drsow run`), PIP_ARGS= (options of pip: another index, say).

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
export PIP_ARGS

ifeq ($(origin PAIR) $(origin STUDY),command line command line)
$(error PAIR and STUDY are both given; give one)
endif
# The command line counts before the environment.
ifeq ($(origin PAIR) $(origin STUDY),command line environment)
STUDY =
endif
PAIR ?= embedded
DATA ?= $(if $(filter embedded,$(PAIR)),sample,reward-bench)
STUDY_ROWS = $(or $(STUDY_DATA),$(if $(filter file,$(origin DATA)),,$(DATA)),reward-bench)
SUBJECT = $(if $(STUDY),--study $(STUDY),--pair $(PAIR)) --data "$(if $(STUDY),$(STUDY_ROWS),$(DATA))"
# The scores of a study that are in git.
SCORES ?= results/$(STUDY)/$(STUDY_ROWS)/scores

.DEFAULT_GOAL := help
# The whole way from prompts to a tuned model. Labels are by the byte: under the sum a policy learns to write longer. The
# pair that judges took no part in the labels. Where DRSOW_IFEVAL names IFEval's prompts, they measure the policy before
# and after.
POLICY ?= smollm2-135m-instruct-q4
REWARD ?= per-byte
PROMPTS ?= pairs/prompts.jsonl
HELD_OUT ?= pairs/prompts_held_out.jsonl
JUDGE ?= qwen-coder-1.5b-over-smollm2
NEW_TOKENS ?= 80
PIPELINE ?= results/pipeline
RUN = $(PIPELINE)/run
SHARDS ?= 20
# Alignment ladders: data to tune on, prompts of IFEval, held-out preferences; weights stay in
# $(LADDERS)/run. N_INSTRUCTIONS prompts of IFEval for each model; N_ROWS rows of each subset of RewardBench for each pair.
RECIPE ?= pairs/ladders.toml
TUNE_ON ?= $(or $(DRSOW_RMB_TRAIN),$(error name preferences to tune on: TUNE_ON=FILE or DRSOW_RMB_TRAIN))
INSTRUCTIONS ?= $(or $(DRSOW_IFEVAL),$(error name the prompts of IFEval: INSTRUCTIONS=FILE or DRSOW_IFEVAL))
PREFERENCES ?= $(or $(DRSOW_RMB_HELD_OUT),$(error name held-out preferences: PREFERENCES=FILE or DRSOW_RMB_HELD_OUT))
LADDERS ?= results/ladders
N_INSTRUCTIONS ?= 200
N_ROWS ?= 20
KNOWN = $(LADDERS)/registry
CLIMB = $(BIN)/drsow ladder "$(RECIPE)" --preferences "$(TUNE_ON)" --prompts "$(HELD_OUT)" --limit-per-subset 4 --out "$(LADDERS)"
PERFORM = $(BIN)/drsow perform --registry "$(KNOWN)" --scores "$(KNOWN)/scores.toml"

.PHONY: help bench leaderboard figures rebuild report pipeline ladders slurm test promises test-slow perf perf-gpu check docs audit clean

help: ## list these verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  e.g. make bench; make bench PAIR=mistral-7b; make bench STUDY=paper-221; make figures PAIR=embedded"

bench: $(VENV)/.installed ## score a pair or study, print its leaderboard, write CSVs and figures
	@$(BIN)/drsow run $(SUBJECT) $(ARGS)

leaderboard: $(VENV)/.installed ## make the leaderboard again from stored scores
	@$(BIN)/drsow leaderboard $(SUBJECT) $(ARGS)

figures: $(VENV)/.installed ## draw figures and printable tables again from the CSVs
	@$(BIN)/drsow figures $(SUBJECT) $(ARGS)

rebuild: $(VENV)/.installed ## make a study again from its scores in git, without a model (STUDY= SCORES=FOLDER ARGS=; results/README.md has the line)
	@$(BIN)/drsow import "$(SCORES)" $(SUBJECT) $(ARGS)
	@$(BIN)/drsow leaderboard $(SUBJECT) $(ARGS)
	@$(BIN)/drsow figures $(SUBJECT) $(ARGS)

report: $(VENV)/.installed ## write the self-contained page report.html from stored scores
	@$(BIN)/drsow report $(SUBJECT) $(ARGS)

slurm: $(VENV)/.installed ## write drsow.sbatch: a study as a job array (STUDY= SHARDS=20)
	@case "$(SHARDS)" in ''|*[!0-9]*|0*) echo "SHARDS is '$(SHARDS)'; it must be a whole number from 1 on" >&2; exit 2;; esac
	@printf '%s\n' '#!/bin/bash' '#SBATCH --job-name=drsow --array=1-$(SHARDS) --gres=gpu:1 --requeue --open-mode=append' \
	  'cd "$$SLURM_SUBMIT_DIR"' 'export HF_HUB_OFFLINE=1' \
	  '$(subst ','\'',exec $(BIN)/drsow run $(SUBJECT) --shard "$$SLURM_ARRAY_TASK_ID/$(SHARDS)" $(ARGS))' > drsow.sbatch
	@echo "drsow.sbatch: fetch the models first ($(BIN)/drsow fetch $(or $(STUDY),$(PAIR))), then sbatch drsow.sbatch"

pipeline: $(VENV)/.installed ## prompts -> candidates -> labels -> a tuned model -> before and after (PROMPTS= HELD_OUT= POLICY= JUDGE=; each run its own folder: PIPELINE=DIR)
	@$(BIN)/drsow sample --model "$(POLICY)" --prompts "$(PROMPTS)" --n 8 --max-new-tokens $(NEW_TOKENS) --out "$(RUN)/candidates.jsonl"
	@$(BIN)/drsow annotate --pair $(PAIR) --reward $(REWARD) --candidates "$(RUN)/candidates.jsonl" --out "$(RUN)/preferences"
	@$(BIN)/drsow tune --policy "$(POLICY)" --preferences "$(RUN)/preferences" --lora --lr 3e-4 --epochs 2 --batch 8 --out "$(RUN)/tuned"
	@$(BIN)/drsow judge --before "$(POLICY)" --after "$(RUN)/tuned" --prompts "$(HELD_OUT)" --annotator $(PAIR) --pair $(JUDGE) \
	  --reward $(REWARD) --max-new-tokens $(NEW_TOKENS) --out "$(PIPELINE)"
	@cp "$(RUN)/preferences/README.md" "$(PIPELINE)/preferences.md"
	@for each in $(if $(DRSOW_IFEVAL),before:"$(POLICY)" after:"$(RUN)/tuned"); do \
	  $(BIN)/drsow perform --task ifeval --prompts "$(DRSOW_IFEVAL)" --limit $(N_INSTRUCTIONS) --model "$${each#*:}" --out "$(RUN)/ifeval-$${each%%:*}" && \
	  cp "$(RUN)/ifeval-$${each%%:*}/ifeval.csv" "$(PIPELINE)/ifeval_$${each%%:*}.csv" || exit; done

ladders: $(VENV)/.installed ## tune ladders of more and less aligned models, measure and judge them (hours; TUNE_ON= INSTRUCTIONS= PREFERENCES=)
	@$(CLIMB)
	@tail -n +2 "$(LADDERS)/rungs.csv" | while IFS=, read -r model template rest; do \
	  $(PERFORM) --model $$model --template $$template --task ifeval --prompts "$(INSTRUCTIONS)" --limit $(N_INSTRUCTIONS) </dev/null && \
	  $(PERFORM) --model $$model --template $$template --task preferences --data "$(PREFERENCES)" </dev/null || exit; done
	@$(CLIMB)
	@for study in ladders ladders-without-starts ladders-by-recipe; do \
	  $(BIN)/drsow run --study $$study --registry "$(KNOWN)" --data reward-bench --limit-per-subset $(N_ROWS) $(ARGS) || exit; done
	@$(BIN)/drsow scores --study ladders --registry "$(KNOWN)" --data reward-bench --limit-per-subset $(N_ROWS) \
	  --out "$(LADDERS)/reward-bench-$(N_ROWS)-per-subset/scores"

test: $(VENV)/.tested ## run the tests, two at a time (under 10 minutes)
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

promises: $(VENV)/.tested ## run every test that docs/reference/promises.md names
	@KILLS=$${KILLS:-10} $(BIN)/python -m pytest -m "" $$(grep -o 'tests/[a-z_/]*\.py::[A-Za-z0-9_]*' docs/reference/promises.md | sort -u) $(ARGS)

test-slow: $(VENV)/.tested $(VENV)/.docs ## run the tests that take longer
	@$(BIN)/python -m pytest -m slow $(ARGS)

perf: $(VENV)/.perf ## compare speed, memory and precision with other tools (40 minutes, with ARGS=--full 2 hours; needs DRSOW_REWARDBENCH)
	@PYTHONPATH=tests $(BIN)/python -m perf $(ARGS)

perf-gpu: $(VENV)/.tested ## measure correctness and speed on a GPU in eight minutes, without a network: LENGTHS=FILE
	@PYTHONPATH=tests $(BIN)/python -m perf.gpu --lengths "$(or $(LENGTHS),$(error name a file of lengths: LENGTHS=FILE))" --profile $(ARGS)

check: $(VENV)/.tested ## style, layers, spelling, types: under 20 seconds (the first time a minute)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/codespell
	@$(BIN)/python -m mypy

docs: $(VENV)/.docs ## build the documentation into site/; a broken link or a missing docstring fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build $(ARGS)  # with --quiet warnings do not fail it
	@echo "site/index.html; with search: $(BIN)/python -m http.server --directory site"

audit: $(VENV)/.installed ## ask the package index whether a pinned version has a known vulnerability (needs a network)
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt 'pip-audit>=2.9,<3'
	@$(BIN)/pip-audit --strict --no-deps --disable-pip -r constraints.txt

clean: ## remove the environment (scores and models stay)
	rm -rf $(VENV)

# pip compiles what it installs on one core, compileall on all of them.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "drsow needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 4; }
	@echo "making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-compile -c constraints.txt -e .
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	@touch $@

# What tests compare with comes without its own dependencies, which it needs for more than that.
$(VENV)/.tested: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev,ray,perform,url]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps rewardbench==0.1.4 alpaca-eval==0.6.6 lm-eval==0.4.13
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[docs]'
	@touch $@

$(VENV)/.perf: $(VENV)/.tested
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[perf]'
	@touch $@
