import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monai_synth.utils import hold_folder, io, release_folder

HOLD = """
import sys, time
from monai_synth.utils import hold_folder
hold_folder(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_dies(tmp_path):
    folder = tmp_path / "out"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "held"
    with pytest.raises(RuntimeError, match=f"is being used by another run .process {other.pid} on .*--output_dir"):
        hold_folder(folder)
    other.kill()  # SIGKILL: no clean-up of its own
    other.wait()
    hold_folder(folder)
    hold_folder(folder)  # the same process may ask again
    release_folder(folder)


HOLD_WITH_CHILD = """
import os, sys, time
from monai_synth.utils import hold_folder
hold_folder(sys.argv[1])
if os.fork() == 0:  # as a process that reads images
    print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_lock_ends_with_its_process_though_a_process_that_it_forked_lives_on(tmp_path):
    words = [sys.executable, "-c", HOLD_WITH_CHILD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        child = int(other.stdout.readline())
        try:
            with pytest.raises(RuntimeError, match="is being used by another run"):
                hold_folder(tmp_path)
            other.kill()
            other.wait()
            os.kill(child, 0)  # is there
            hold_folder(tmp_path)
        finally:
            os.kill(child, signal.SIGKILL)
    release_folder(tmp_path)


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
WRITING = """
import sys
from monai_synth.utils import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    print("begun", flush=True)
    sys.stdin.read()
    temporary.write_text("all")
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from monai_synth.utils import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(tmp_path):
    for name in ("out/adapter/state.safetensors", "out/notes", "out/other/mine.json"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
    assert len(list(tmp_path.rglob(".*.part*"))) == 3
    (tmp_path / "out" / "my.part.txt").write_text("mine")
    (tmp_path / "out" / ".my.part").write_text("mine")
    with subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path / "out" / "all.zip")], **PIPES) as other:
        assert other.stdout.readline().strip() == "begun"
        hold_folder(tmp_path / "out")
        release_folder(tmp_path / "out")
        left = {re.sub(r"\.[a-z0-9_]{8}\.", ".", path.name) for path in (tmp_path / "out").rglob("*.part*")}
        assert left == {"my.part.txt", ".my.part", ".all.part.zip"}  # what another process is writing stays
        assert other.communicate("go on")[0] == "" and other.returncode == 0
    assert (tmp_path / "out" / "all.zip").read_text() == "all"


def test_a_file_system_without_locks_is_written_all_the_same_and_nothing_is_removed_there(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "half.txt")], check=False)

    def flock(handle, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(io.fcntl, "flock", flock)
    io.write_text(tmp_path / "whole.txt", "all")
    io.remove_unfinished(tmp_path)
    assert (tmp_path / "whole.txt").read_text() == "all" and len(list(tmp_path.glob(".half.*"))) == 1


HOLD_WITHOUT_LOCKS = """
import fcntl, sys, time
def flock(handle, operation):
    raise OSError(38, "Function not implemented")
fcntl.flock = flock
from monai_synth.utils import hold_folder
hold_folder(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_without_locks_a_second_run_is_refused_too_and_told_what_to_remove(tmp_path, monkeypatch):
    words = [sys.executable, "-W", "ignore", "-c", HOLD_WITHOUT_LOCKS, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline().strip() == "held"

        def flock(handle, operation):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(io.fcntl, "flock", flock)
        marker = re.escape(str(tmp_path / ".lock"))
        with pytest.raises(RuntimeError, match=f"process {other.pid} on .* has no locks: .* gone, remove {marker}"):
            hold_folder(tmp_path)
        other.kill()
    hold_folder(tmp_path)  # on the same host a killed process is known to be gone
    release_folder(tmp_path)


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    def mkdir(self, **options):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(PermissionError, match="run cannot be written: .*Read-only.* Name another --output_dir"):
        hold_folder(tmp_path / "run")


def test_a_folder_whose_lock_was_left_but_that_cannot_be_written_is_named_and_not_held(tmp_path, monkeypatch):
    def replace(source, target):
        raise PermissionError(13, "Permission denied", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(io.os, "replace", replace)
        with pytest.raises(PermissionError, match="cannot be written: .*Permission denied.* Name another --output_dir"):
            hold_folder(tmp_path)
    hold_folder(tmp_path)
    release_folder(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(PermissionError, match="cannot be written.*--output_dir"):
        hold_folder(tmp_path / "file" / "out")
