# Two commands: `make demo` (real images, pretraining, verdict) and `make test` (all tests). Both make the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: env fashion-mnist demo test lint bench-loss clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "frossl needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# Debian's package spares the download, which is the way elsewhere and where the package cannot be had.
fashion-mnist:
	@if [ -d /usr/share/datasets/fashion-mnist ]; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends dataset-fashion-mnist \
			|| echo "apt-get cannot install dataset-fashion-mnist; Fashion-MNIST will be downloaded"; \
	else \
		echo "Fashion-MNIST will be downloaded; without a network: sudo apt-get install dataset-fashion-mnist"; \
	fi

demo: env fashion-mnist
	@if [ -f $(DEMO)/evaluation.json ]; then \
		echo "$(DEMO) is there already; evaluating it again (make clean removes it)"; \
		$(BIN)/frossl evaluate $(DEMO); \
	elif [ -d $(DEMO)/checkpoints ]; then \
		$(BIN)/frossl pretrain --resume $(DEMO); \
	else \
		rm -rf $(DEMO); \
		$(BIN)/frossl pretrain --recipe fashion-mnist-cpu --name demo; \
	fi

test: env
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/codespell src tests benchmarks docs README.md CONTRIBUTING.md CHANGELOG.md
	$(BIN)/pytest -n 2

lint: env
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

bench-loss: env
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/loss.py

clean:
	rm -rf $(DEMO)
