"""Orthanc, started for a test in a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.pacs.parts import wait_until

PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
NODE_PORT = 11112

LUA = """
function OnStableSeries(seriesId, tags, metadata)
   RestApiPost('/modalities/AINODE/store', DumpJson({Resources={seriesId}, Synchronous=false}))
end
"""


class Orthanc:
    """A running Orthanc."""

    def __init__(self, http_port: int, dicom_port: int) -> None:
        self.rest = f"http://127.0.0.1:{http_port}"
        self.url = f"{self.rest}/dicom-web"
        self.dicom_port = dicom_port

    def get(self, path: str) -> Any:
        """The JSON behind a path of its REST interface."""
        answer = requests.get(self.rest + path, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return requests.get(f"{self.rest}/system", timeout=1).ok
        except requests.ConnectionError:
            return False

    def find(self, level: str, **query: str) -> list[str]:
        """Its own names of what matches."""
        body = {"Level": level, "Query": query}
        answer = requests.post(f"{self.rest}/tools/find", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def file(self, name: str) -> bytes:
        """The bytes of an instance as it is stored."""
        return requests.get(f"{self.rest}/instances/{name}/file", timeout=10).content

    def upload(self, folder: Path) -> None:
        """Store every file of a folder."""
        for path in sorted(folder.glob("*.dcm")):
            requests.post(f"{self.rest}/instances", data=path.read_bytes(), timeout=10).raise_for_status()


@contextmanager
def running_orthanc(
    folder: Path, http_port: int = 8042, dicom_port: int = 4242, *, autoroute: bool = False, user: str = ""
) -> Iterator[Orthanc]:
    """An Orthanc while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "route.lua"
    script.write_text(LUA, encoding="utf-8")
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": bool(user),
        "RegisteredUsers": {user: "secret-password"} if user else {},
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowStore": True,
        "DicomCheckModalityHost": False,
        "DicomModalities": {"AINODE": ["EFFVIT", "127.0.0.1", NODE_PORT]},
        "StableAge": 1,
        "OverwriteInstances": True,
        "SaveJobs": False,
        "JobsHistorySize": 1000,
        "LuaScripts": [str(script)] if autoroute else [],
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TCP_NODELAY": "1"}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], env=environment, stdout=log, stderr=log)
    server = Orthanc(http_port, dicom_port)
    try:
        if user:
            wait_until(lambda: _answers(server.rest))
        else:
            wait_until(server.is_up)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).status_code == 401
    except requests.ConnectionError:
        return False
