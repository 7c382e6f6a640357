# Two commands on a fresh machine do all the set-up: `make demo` and `make test`.
# Both make .venv when it is missing or when pyproject.toml or constraints.txt changed; otherwise they install nothing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Tests run in so many processes, each with one thread; a file's tests stay together. A process that dies ends the run:
# pytest-xdist 3.8 would start another, and wait for ever for tests that are done
WORKERS ?= 2
NNUNET := $(VENV)/nnunet
PYQT6 := $(VENV)/pyqt6
NAPARI08 := $(VENV)/napari08
STAMP := $(VENV)/installed
PIP_FLAGS := --quiet --disable-pip-version-check
CHECKED := --jaxtyping-packages=effvit_med.networks,effvit_med.transforms.spatial,effvit_med.engine.scoring,beartype.beartype
# What has no window is tested without the pytest plugins of napari and Qt, which would import both before every test
WINDOWLESS := -p no:napari -p no:npe2 -p no:napari-plugin-engine -p no:pytest-qt
# Where Qt cannot be loaded, as some library of the system is missing, pytest-qt would stop everything: tests skip instead
IF_QT := $$($(BIN)/python -c 'import PySide6.QtWidgets' 2>/dev/null || echo -p no:pytest-qt)
# The plugin's tests: one process, under a display of their own where xvfb-run is; elsewhere windows open on the screen,
# and where there is no screen those that need one skip
DISPLAYED := OMP_NUM_THREADS=1 $(shell command -v xvfb-run >/dev/null && command -v xauth >/dev/null && \
  echo 'env -u QT_QPA_PLATFORM xvfb-run -a -s "-screen 0 1600x1000x24"')
PLUGIN_TESTS = $(DISPLAYED) $(BIN)/python -m pytest -q $(IF_QT) tests/plugin napari_plugin -m

.PHONY: demo test test-slow test-plugin test-qt lint format train evaluate bench bench-accuracy bench-batch bench-engine bench-interactive bench-networks bench-review wheel sample-data screenshots docs-images clean

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
	@$(BIN)/python -m pytest -q -p no:randomly $(WINDOWLESS) README.md docs # examples of a page run in its order
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --max-worker-restart=0 -m "not slow" $(WINDOWLESS) --ignore=tests/plugin $(CHECKED)
	@$(PLUGIN_TESTS) "not slow"

test-plugin: $(STAMP) ## the last part of make test: napari's plugin
	@$(PLUGIN_TESTS) "not slow"

test-slow: $(STAMP) ## the tests that make test leaves out
	@$(BIN)/python -m pytest -q -m slow $(WINDOWLESS) --ignore=tests/plugin $(CHECKED)
	@$(PLUGIN_TESTS) slow || test $$? = 5 # 5: there is none

# A corner sees what .venv has, and has something of its own instead of some of it
define corner
$(BIN)/python -m venv --without-pip $(1)
@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" > \
  "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
endef

$(PYQT6)/installed: $(STAMP)
	@$(call corner,$(PYQT6))
	@$(PYQT6)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt PyQt6
	@touch $@

# It asks for a vispy of its time; all else is as in constraints.txt
$(NAPARI08)/installed: $(STAMP)
	@$(call corner,$(NAPARI08))
	@$(NAPARI08)/bin/python -m pip install $(PIP_FLAGS) --no-deps napari==0.8.0 vispy==0.16.2
	@$(NAPARI08)/bin/python -m pip check
	@touch $@

test-qt: $(PYQT6)/installed $(NAPARI08)/installed ## the plugin under the other Qt binding and the oldest napari (some minutes)
	@QT_API=pyqt6 PYTEST_QT_API=pyqt6 $(DISPLAYED) $(PYQT6)/bin/python -m pytest -q -m "window and not slow" tests/plugin
	@$(DISPLAYED) $(NAPARI08)/bin/python -m pytest -q -m "window and not slow" tests/plugin

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

bench-accuracy: $(VENV)/bench-installed $(NNUNET)/installed ## Dice beside MONAI's networks and nnU-Net, trained here on real scans (a night)
	@$(BIN)/python -m benchmarks.versus

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

PROMPTED := prompt
bench-interactive: $(VENV)/bench-installed ## clicks that real objects take, with rivals, and what a click takes; PROMPTED=FOLDER for another network (half an hour)
	@$(BIN)/python -m benchmarks.clicks --bundle "$(PROMPTED)"
	@$(BIN)/python -m benchmarks.prompt_latency --bundle "$(PROMPTED)"

bench: bench-networks bench-engine bench-batch bench-review ## every figure that the documentation quotes
	@$(BIN)/python -m benchmarks.published
	@$(BIN)/python -m benchmarks.super_resolution
	@$(BIN)/python -m benchmarks.accuracy
	@$(BIN)/python -m benchmarks.dicom_seg

wheel: $(STAMP)
	@$(BIN)/python -m build --wheel

sample-data: $(STAMP) ## make sample_data/ again, bit for bit
	@$(BIN)/python sample_data/make.py

screenshots: $(STAMP) ## the pictures of the plugin in the documentation, from the running plugin
	@$(DISPLAYED) $(BIN)/python docs/screenshots.py

docs-images: demo ## the picture in the README
	@cp demo_output/*/overlay.png docs/images/demo_overlay.png

clean:
	rm -rf demo_output runs dist
