# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
# `make RUNTIME=gpu …` installs onnxruntime-gpu instead: the two exclude each other.
RUNTIME ?= cpu
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-$(RUNTIME)

.PHONY: demo test lint bench gpu-check golden sbom browser cpp cpp-packages clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[train,openvino,ui,$(RUNTIME),dev]' --constraint constraints.txt
	touch $@

demo: $(STAMP)        ## draw parts, train, export, inspect, report: runs/demo
	$(BIN)/inspect-kd demo --fresh

test: $(STAMP) browser cpp-packages ## the default tier; SLOW=1 adds real training
	$(BIN)/python -m pytest $(if $(SLOW),-m 'not network and not gpu')

lint: $(STAMP)        ## ruff, mypy --strict, import rules
	$(BIN)/ruff check inspect_kd tests benchmarks docs
	$(BIN)/ruff format --check inspect_kd tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)       ## the figures under docs/results, on the data sets at INSPECT_KD_REAL_DATA
	$(BIN)/python benchmarks/real_data.py
	$(BIN)/python benchmarks/ablation.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/teachers.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/distillation.py
	$(BIN)/python benchmarks/unlabelled.py
	$(BIN)/python benchmarks/chain.py
	$(BIN)/python benchmarks/labelling.py
	$(BIN)/python benchmarks/blend.py
	$(BIN)/python benchmarks/studio.py --artifact runs/demo/parts/parts.onnx

# For whoever has an NVIDIA GPU: one command, one report (docs/results/gpu.md).
gpu-check:
	$(MAKE) RUNTIME=gpu $(VENV)/.installed-gpu
	$(BIN)/python -m pip install --quiet --editable '.[tensorrt]' --constraint constraints.txt
	$(BIN)/python benchmarks/gpu_check.py

golden: $(STAMP)      ## rewrite the golden files on purpose
	$(BIN)/python -m pytest --update-golden tests/test_cli.py tests/test_train.py tests/test_distill.py

sbom: $(STAMP)        ## rewrite the bills of materials under docs/sbom
	$(BIN)/python docs/sbom/write_sbom.py

# The report is looked at in a real browser. Installed where this user may; elsewhere its tests say that they skip.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	  else echo "no Chromium here and no right to install it: browser tests will be skipped"; fi

cpp: $(STAMP) cpp-packages ## the smallest C++ caller of an artifact: build/cpp/inspect_kd_cpp
	export/cpp/build.sh $(BIN)/python build/cpp

# Installed where this user may, as with the browser; elsewhere the tests of the C++ program say that they skip.
cpp-packages:
	@export/cpp/get_packages.sh

clean:
	rm -rf runs dist build .pytest_cache .mypy_cache .ruff_cache
