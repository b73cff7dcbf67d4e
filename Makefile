# make demo             trains, evaluates and segments on drawn scenes, in minutes on a CPU
# make test             lints and runs the quick tests, in six minutes on two cores
# make test-slow        runs the others
# make test-all         runs both
# make test-openmmlab   runs all tests on the second stack, with PyTorch 2.1 and a compiled MMCV
# make test-gpu         runs on a GPU what needs one, and prints tables of speed and memory; installs nothing
# All but the last make .venv before, with the default stack at the versions of requirements/constraints.txt;
# test-openmmlab makes .venv-openmmlab, at those of requirements/constraints-openmmlab.txt.

# The default stack needs Python 3.10 or newer; the first one found is taken. Another: make demo PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
DEMO := work_dirs/demo
DEMO_CONFIG := configs/fpn_inceptionnext_a_toy.py
VALIDATION := data/toy_ade20k/images/validation

# PyTorch 2.1 is there for Python 3.8 to 3.11.
PYTHON_OPENMMLAB ?= $(shell for p in python3.11 python3.10 python3 python3.9; do \
	$$p -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
OPENMMLAB := .venv-openmmlab
# What is installed where the GPU is: PyTorch with CUDA, and this package with MMSegmentation.
PYTHON_OF_GPU ?= python3
BENCHMARK := $(PYTHON_OF_GPU) tools/benchmark.py --markdown --runs 11
# As many tests at a time as WORKERS, each on one core. They are compared bit for bit, and their GPU is a fake one: a real
# one is hidden from them.
WORKERS ?= 2
PYTEST := -m pytest -q --numprocesses=$(WORKERS) --dist=worksteal
INSTALL_OPENMMLAB := $(OPENMMLAB)/bin/pip install -qq --disable-pip-version-check --no-build-isolation \
	-c requirements/constraints-openmmlab.txt

.PHONY: demo test test-slow test-all test-openmmlab test-gpu lint

test test-slow test-openmmlab: export OMP_NUM_THREADS := 1
test test-slow test-openmmlab: export CUDA_VISIBLE_DEVICES :=

.venv/installed: setup.cfg pyproject.toml requirements/constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.10 or newer found (python3 is $$(python3 -V 2>&1)); install one with" \
		"its venv module, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -qq --disable-pip-version-check -c requirements/constraints.txt -e '.[onedl,dev]'
	$(RUN) -m mmseg_inceptionnext
	touch $@

demo: .venv/installed
	$(RUN) tools/make_toy_ade20k.py --out data/toy_ade20k --num-train 200 --num-val 40 --seed 0
	$(RUN) tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO) --cfg-options randomness.seed=0
	$(RUN) tools/test.py $(DEMO_CONFIG) $(DEMO)/iter_800.pth --work-dir $(DEMO)
	$(RUN) tools/infer.py $(DEMO)/iter_800.pth $(VALIDATION)/toy_validation_0000[012].jpg --out-dir $(DEMO)/overlays
	@$(RUN) -c 'import json; print("mIoU of the toy validation set: %.2f" % json.load(open("$(DEMO)/metrics.json"))["mIoU"])'
	@echo "overlays to look at:" && ls $(DEMO)/overlays/*_overlay.jpg

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/lint-imports --no-cache > .venv/imports.log || { cat .venv/imports.log; exit 1; }

test: lint
	$(RUN) $(PYTEST) -m 'not slow'

test-slow: .venv/installed
	$(RUN) $(PYTEST) -m slow

test-all: test
	$(MAKE) --no-print-directory test-slow

# MMCV has no wheel of its operators for this PyTorch on a CPU: pip compiles them against the PyTorch that is installed
# before, once, and keeps the wheel for the next time.
$(OPENMMLAB)/installed: setup.cfg pyproject.toml requirements/constraints-openmmlab.txt
	@test -n "$(PYTHON_OPENMMLAB)" || { echo "no Python 3.9 to 3.11 found (python3 is $$(python3 -V 2>&1)); install one" \
		"with its venv module, or name it: make test-openmmlab PYTHON_OPENMMLAB=/path/to/python" >&2; exit 1; }
	$(PYTHON_OPENMMLAB) -m venv $(OPENMMLAB)
	$(INSTALL_OPENMMLAB) torch torchvision numpy setuptools wheel ninja psutil
	@echo "MMCV: compiling its operators takes about eleven minutes on two cores, and a C++ compiler"
	MMCV_WITH_OPS=1 FORCE_CUDA=0 $(INSTALL_OPENMMLAB) mmcv
	$(INSTALL_OPENMMLAB) -e '.[openmmlab,dev]' mmdet
	$(OPENMMLAB)/bin/python -m mmseg_inceptionnext
	touch $@

test-openmmlab: $(OPENMMLAB)/installed
	$(OPENMMLAB)/bin/python $(PYTEST)

test-gpu:
	$(PYTHON_OF_GPU) -m pytest -q -p no:cacheprovider tests/test_gpu.py
	$(BENCHMARK) --compare-stock configs/upernet_inceptionnext_t_ade20k.py --mode predict --batch-size 1 8 --amp fp32 bf16
	$(BENCHMARK) --compare-stock configs/upernet_inceptionnext_t_ade20k.py --mode train --batch-size 2 16 --amp fp32 bf16
	$(BENCHMARK) --compare-stock configs/fpn_inceptionnext_t_ade20k.py --mode predict train --batch-size 4 --amp fp32 bf16
	$(BENCHMARK) --compare-stock configs/upernet_inceptionnext_t_ade20k.py --mode backbone --batch-size 24 --amp fp32 bf16
	$(BENCHMARK) --classifiers --mode infer train --amp fp32 bf16
