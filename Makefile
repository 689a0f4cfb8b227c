# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
# Processes of `make test`, each on one thread; `make test JOBS=` runs all tests in one process.
JOBS   ?= 2
# `make RUNTIME=gpu …` installs onnxruntime-gpu instead: the two exclude each other.
RUNTIME ?= cpu
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-$(RUNTIME)

.PHONY: demo test lint bench docs gpu-check golden sbom browser cpp cpp-packages clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[train,openvino,ui,$(RUNTIME),dev]' --constraint constraints.txt
	touch $@

demo: $(STAMP)        ## draw parts, train, export, inspect, report: runs/demo
	$(BIN)/inspect-kd demo --fresh

test: $(STAMP) browser cpp-packages ## the default tier; SLOW=1 adds real training
	$(BIN)/python -m pytest$(if $(JOBS), -n $(JOBS) --dist loadfile) $(if $(SLOW),-m 'not network and not gpu')

lint: $(STAMP)        ## ruff, mypy --strict, import rules
	$(BIN)/ruff check inspect_kd tests benchmarks docs
	$(BIN)/ruff format --check inspect_kd tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

# The student of three real categories that several benchmarks export, time or serve; benchmarks.real_data trains it.
REAL_RUN := runs/bench/bottle-metal_plate-tile-omni_ad

bench: $(STAMP) cpp   ## every figure under docs/results, on the data sets at INSPECT_KD_REAL_DATA: many hours
	$(BIN)/python -m benchmarks.real_data
	$(BIN)/python -m benchmarks.real_data --model embedded
	$(BIN)/python -m benchmarks.ablation
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.aims
	$(BIN)/python -m benchmarks.teachers
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.presentation
	$(BIN)/python -m benchmarks.distillation
	$(BIN)/python -m benchmarks.unlabelled
	$(BIN)/python -m benchmarks.chain
	$(BIN)/python -m benchmarks.labelling
	$(BIN)/python -m benchmarks.blend
	$(BIN)/python -m benchmarks.exports
	$(BIN)/python -m benchmarks.agreement $(REAL_RUN)
	$(BIN)/python -m benchmarks.studio --artifact $(REAL_RUN)/$(notdir $(REAL_RUN)).onnx
	$(BIN)/python -m benchmarks.advice
	$(BIN)/python -m benchmarks.fuzz

docs: $(STAMP)        ## rewrite what programs write: docs/recipes.md, the README's figures, the pages of docs/results
	$(BIN)/python docs/write_recipes.py
	$(BIN)/python docs/write_figures.py
	$(BIN)/python docs/write_notebook.py
	$(BIN)/python -m benchmarks.write_pages

# One command and one report (docs/results/gpu.md) on a machine with an NVIDIA GPU.
gpu-check:
	$(MAKE) RUNTIME=gpu $(VENV)/.installed-gpu
	$(BIN)/python -m pip install --quiet --editable '.[tensorrt]' --constraint constraints.txt
	$(BIN)/python -m benchmarks.gpu_check

golden: $(STAMP)      ## rewrite the golden files on purpose
	$(BIN)/python -m pytest --update-golden tests/test_cli.py tests/test_golden.py $(wildcard tests/test_distill.py tests/distill)

sbom: $(STAMP)        ## rewrite the bills of materials under docs/sbom
	$(BIN)/python docs/sbom/write_sbom.py

# Browser tests need Chromium. It is installed where this user is allowed to; elsewhere those tests are skipped.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	  else echo "no Chromium here and no right to install it: browser tests will be skipped"; fi

cpp: $(STAMP) cpp-packages ## the smallest C++ caller of an artifact: build/cpp/inspect_kd_cpp
	export/cpp/build.sh $(BIN)/python build/cpp

# Installed where this user is allowed to, like the browser; elsewhere the tests of the C++ program are skipped.
cpp-packages:
	@export/cpp/get_packages.sh

clean:
	rm -rf runs dist build .pytest_cache .mypy_cache .ruff_cache
