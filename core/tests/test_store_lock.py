from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from locex.errors import StoreUnavailable
from locex.store.lock import FolderLock

OWNER = """
import subprocess, sys
from pathlib import Path
from locex.store.lock import FolderLock
FolderLock(Path(sys.argv[1])).acquire()
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdin=-1, stdout=-1, text=True)
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def test_a_second_owner_is_refused_by_name(owner, tmp_path):
    with pytest.raises(StoreUnavailable) as caught:
        FolderLock(tmp_path).acquire()
    assert str(tmp_path) in caught.value.message
    assert str(owner.pid) in caught.value.message
    assert "stop that process" in caught.value.remedy


def test_a_dead_owners_folder_is_free_although_its_child_lives(owner, tmp_path):
    owner.kill()
    owner.wait()
    with FolderLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_released_folder_is_free(tmp_path):
    for _ in range(2):
        with FolderLock(tmp_path / "new"), pytest.raises(StoreUnavailable):
            FolderLock(tmp_path / "new").acquire()
    assert (tmp_path / "new" / "lock").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        FolderLock(tmp_path / "file").acquire()
