"""Tests that start an Orthanc are collected only inside the network that `test_orthanc` makes for them."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("EFFVIT_MED_INSIDE") else ["inside/*"]
