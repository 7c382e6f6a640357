"""What every test may use."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import register_random, settings

from effvit_med.engine.model import read_model
from effvit_med.networks import save_weights

settings.register_profile("effvit", deadline=None, max_examples=30)
settings.load_profile("effvit")

ROOT = Path(__file__).parents[1]


class _TorchRandom:
    """torch's generator as hypothesis wants it: each example draws the same tensors whenever it is run again."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_TORCH_RANDOM = _TorchRandom()  # hypothesis keeps a weak reference only
register_random(_TORCH_RANDOM)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport) -> None:
    """Say at once which test took its process down: where the run is stopped later, no summary would."""
    print(f"\n{report.longrepr}: {crashitem}", file=sys.__stderr__, flush=True)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept from run to run is kept for this one only, also in processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFVIT_MED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seed_torch() -> None:
    """A test draws the same tensors in whatever order the tests run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The commands set up logging for their process; run inside a test, they leave the next test none of it."""
    root = logging.getLogger()
    handlers = set(root.handlers)
    levels = {each: each.level for each in (root, *map(logging.getLogger, ("effvit_med", "pydicom")))}
    yield
    for handler in set(root.handlers) - handlers:
        if type(handler) is logging.StreamHandler:  # pytest has its own, of other types
            root.removeHandler(handler)
    for logger, level in levels.items():
        logger.setLevel(level)


@pytest.fixture(name="shared_data", scope="session")
def _shared_data() -> Path:
    """The folder of real scans, which is not part of the repository."""
    folder = Path(os.environ.get("EFFVIT_MED_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("the real scans are not here: set EFFVIT_MED_SHARED to the folder that holds them")
    return folder


@pytest.fixture(name="sample_data", scope="session")
def _sample_data() -> Path:
    """The phantoms that ship with the repository."""
    return ROOT / "sample_data"


@pytest.fixture(name="tiny_bundle", scope="session")
def _tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the shipped labels on a coarse grid and fixed random weights: quick, and wrong on purpose."""
    folder = tmp_path_factory.mktemp("bundle")
    content = yaml.safe_load((ROOT / "configs" / "model.yaml").read_text(encoding="utf-8"))
    content["name"] = "tiny"
    content["preprocess"]["spacing_mm"] = [8.0, 8.0, 8.0]
    content["tiling"]["window"] = [32, 32, 32]
    content["network"]["decoder_stride"] = 2
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    (folder / "configs" / "model.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    model = read_model(folder)
    torch.manual_seed(0)
    save_weights(model.build_network(), model.weights, {})
    return folder
