# The commands of the README. Each sets up what it needs by itself: `.venv`, then the artifacts
# of the demo profile in model_repository/*/1.
PYTHON ?= python3
VENV   := .venv/bin
RUN    := $(VENV)/python

ARTIFACTS := model_repository/mllm/1/manifest.json
SOURCES   := $(wildcard export/*.py training/networks/*.py training/weights/demo/* \
	training/weights/demo/*/* model_repository/*/config.pbtxt)

.PHONY: demo test serve lint quality parity bench setup train

demo: $(ARTIFACTS)
	@$(RUN) -m benchmarks.demo

# A process for each part: several start servers, and check that theirs leaves nothing behind.
TEST_PARTS := tests/test_imports.py tests/model_repository tests/training tests/export \
	tests/benchmarks tests/clients tests/serving/mllm tests/serving/sessions tests/serving/mediround \
	tests/serving tests/integration

test: $(ARTIFACTS)
	@$(PYTHON) deploy/test_servers.py
	@failed=; for part in $(TEST_PARTS); do \
		echo "== $$part"; \
		ignore=; [ $$part != tests/serving ] || ignore="$(addprefix --ignore=tests/serving/,mllm sessions mediround)"; \
		$(VENV)/pytest $$part $$ignore || failed="$$failed $$part"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

serve: $(ARTIFACTS)
	@$(RUN) -m serving.launcher

lint: setup
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy

quality: $(ARTIFACTS)
	@$(RUN) -m benchmarks.quality

parity: $(ARTIFACTS)
	@$(RUN) -m benchmarks.parity

bench: $(ARTIFACTS)
	@$(RUN) -m benchmarks.bench

# Hours on two cores; resumes where it was stopped.
train: setup
	@$(RUN) -m training.run

setup:
	@$(PYTHON) deploy/set_up.py

$(ARTIFACTS): $(SOURCES) | setup
	@echo "Exporting the demo models"
	@$(RUN) -m export --profile demo
	@touch $@
