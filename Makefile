# make demo: the whole way, two generators.   make demo-mnist: on real MNIST.   make test: the default
# tests.   make lint: style, layers, docs.   make docs: the site.
PYTHON := .venv/bin/python
INSTALLED := .venv/.installed

.PHONY: demo demo-mnist test test-all lint format docs bench environment

environment:
	@if [ $(INSTALLED) -nt setup.py ] && [ $(INSTALLED) -nt constraints.txt ]; then \
		echo "environment: .venv is ready"; \
	else \
		echo "environment: installing into .venv (a few minutes)"; \
		test -x $(PYTHON) || python3 -m venv .venv; \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[all]' -c constraints.txt \
			&& touch $(INSTALLED); \
	fi

demo: environment
	$(PYTHON) -m dwf pipeline --config demo
	@echo
	@echo "Look at reports/demo/report.html; reports/index.html lists all. Try next (with .venv/bin on PATH):"
	@echo "  dwf sample --generator demo-digits_neurons_small --condition 0.97 --name asked"
	@echo "  dwf evaluate --zoo demo-aligned --samples asked --name asked"
	@echo "  docs/tutorials/own_data.md"

demo-mnist: environment
	$(PYTHON) -m dwf data mnist
	$(PYTHON) -m dwf pipeline --config mnist_mlp

test: environment
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile \
		-m "not slow and not cluster and not ray and not mpi and not deepspeed and not gpu"

test-all: environment
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not gpu"

lint: environment
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m codespell_lib .
	$(PYTHON) -m pytest tests/test_layers.py tests/test_documentation.py

format: environment
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) tests/configs_index.py --write
	$(PYTHON) -m tests.page_contents --write

docs: environment
	$(PYTHON) docs/site/build.py

bench: environment
	$(PYTHON) benchmarks/run.py
