"""Tests that start an Orthanc are collected only inside the network that `test_orthanc` makes for them."""

from __future__ import annotations

import os

from effvit_med.pacs.libraries import need_pynetdicom

need_pynetdicom()  # the tests' own nodes, too, are to leave no socket open

collect_ignore_glob = [] if os.environ.get("EFFVIT_MED_INSIDE") else ["inside/*"]
