# Two commands on a fresh machine do all the set-up: `make demo` and `make test`.
# Both make .venv when it is missing or when pyproject.toml or constraints.txt changed; otherwise they install nothing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Tests run in so many processes, each with one thread; a file's tests stay together
WORKERS ?= 2
NNUNET := $(VENV)/nnunet
STAMP := $(VENV)/installed

.PHONY: demo test test-slow lint format train evaluate bench bench-batch bench-engine bench-networks bench-review wheel sample-data docs-images clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 is needed: install it, or call make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once; a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,onnx,openvino,pacs,cluster,napari,dev]'
	@touch $(STAMP)

demo: $(STAMP) ## segment the phantom that comes along and say what was made
	@$(BIN)/effvit-med demo --output demo_output

test: $(STAMP) ## all tests (some minutes)
	@$(BIN)/python -m pytest -q -p no:randomly README.md docs # examples of a page run in its order
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow" --jaxtyping-packages=effvit_med.networks,effvit_med.transforms.spatial,effvit_med.engine.scoring,beartype.beartype

test-slow: $(STAMP) ## the tests that make test leaves out
	@$(BIN)/python -m pytest -q -m slow --jaxtyping-packages=effvit_med.networks,effvit_med.transforms.spatial,effvit_med.engine.scoring,beartype.beartype

lint: $(STAMP) ## imports, style, types
	@$(BIN)/lint-imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

train: $(STAMP) ## train the shipped model on phantoms (about an hour on two cores)
	@$(BIN)/python -m monai.bundle run --config_file configs/train.yaml

evaluate: $(STAMP) ## Dice of the shipped model on unseen phantoms, through the bundle
	@$(BIN)/python -m monai.bundle run --config_file configs/evaluate.yaml

$(VENV)/bench-installed: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

bench-networks: $(VENV)/bench-installed ## our networks beside MONAI's and SegFormer (half an hour)
	@$(BIN)/python -m benchmarks.networks

# nnU-Net brings thirty packages, among them builds of torchvision that do not fit every torch: it gets a corner of its own
$(NNUNET)/installed: $(STAMP)
	@$(BIN)/python -m venv $(NNUNET)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(NNUNET)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
	@$(NNUNET)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt nnunetv2==2.8.1
	@touch $@

bench-engine: $(VENV)/bench-installed $(NNUNET)/installed ## the engine beside MONAI and nnU-Net, in every runtime (half an hour)
	@$(BIN)/python -m benchmarks.engine

bench-batch: $(VENV)/bench-installed ## reading, writing, verdicts, a thousand series, a cluster, half an hour of broken files (two hours)
	@$(BIN)/python -m benchmarks.reader
	@$(BIN)/python -m benchmarks.dicom_series
	@$(BIN)/python -m benchmarks.dicom_outputs
	@$(BIN)/python -m benchmarks.quality
	@$(BIN)/python -m benchmarks.batch
	@$(BIN)/python -m benchmarks.cluster
	@$(BIN)/python -m benchmarks.fuzz --minutes 30

bench-review: $(VENV)/bench-installed ## corrections by click, doubts, what a review costs
	@$(BIN)/python -m benchmarks.interactive
	@$(BIN)/python -m benchmarks.review
	@xvfb-run -a -s "-screen 0 1600x1000x24" $(BIN)/python -m benchmarks.plugin

bench: bench-networks bench-engine bench-batch bench-review ## every figure that the documentation quotes
	@$(BIN)/python -m benchmarks.published
	@$(BIN)/python -m benchmarks.super_resolution
	@$(BIN)/python -m benchmarks.accuracy
	@$(BIN)/python -m benchmarks.dicom_seg

wheel: $(STAMP)
	@$(BIN)/python -m build --wheel

sample-data: $(STAMP) ## make sample_data/ again, bit for bit
	@$(BIN)/python sample_data/make.py

docs-images: demo ## the picture in the README
	@cp demo_output/*/overlay.png docs/images/demo_overlay.png

clean:
	rm -rf demo_output runs dist
