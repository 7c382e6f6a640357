"""What tests of the engine share."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest

from effvit_med.engine.runtimes import cache as cache_module


@pytest.fixture(name="own_cache", scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of these tests' own; checks of annotations are no part of what is exported."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache_module.VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield
    jaxtyping.config.update("jaxtyping_disable", before)
