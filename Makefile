# make run    a first look: erase three concepts from the mini model, score what is left, write a report
# make test   lint, types, imports and all tests
# make bench  speed against baselines, one table of ratios; BENCH='sampling --rounds 3' for a part
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint bench clean

run: .venv/ready
	$(BIN)/conceptbench run mini --output runs/mini --store runs/store
	@echo "open runs/mini/report.html"

test: lint
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p conceptbench
	$(BIN)/lint-imports

bench: .venv/ready
	$(BIN)/python tests/benchmarks/run.py $(BENCH)

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist runs *.egg-info
