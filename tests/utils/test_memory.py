import subprocess
import sys

import numpy as np
import psutil
import pytest

from monai_synth.utils import memory


def test_a_container_has_less_than_its_machine(monkeypatch, tmp_path):
    available = psutil.virtual_memory().available
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_host_bytes() == pytest.approx(available, rel=0.2)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert memory.free_host_bytes() == 3000
    stat = "anon 700\nfile 1200\nshmem 100\ninactive_file 800\nactive_file 300\nworkingset_refault_file 9\n"
    (tmp_path / "memory.stat").write_text(stat)
    assert memory.free_host_bytes() == 4100  # files that were read give way
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_host_bytes() > 3000


def test_what_is_kept_of_images_takes_a_quarter_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_host_bytes", lambda: 4 * 10 * 3 * 4 * 224**2)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert memory.cached_images(224) == 10 and memory.cached_images(448) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.cached_images(224) == 5
    monkeypatch.setattr(memory, "free_host_bytes", lambda: -1)
    assert memory.cached_images(224) == 0


PEAKS = """
from monai_synth.utils.memory import peak_host_bytes
print(peak_host_bytes())
bytearray(b"1") * 2**26
print(peak_host_bytes())
"""


@pytest.mark.skipif(not memory.STATUS.exists(), reason="elsewhere a process is not told of its parent's memory")
def test_the_peak_of_a_process_is_its_own_and_counts_what_was_given_back():
    np.ones(2**28, dtype=np.uint8)  # the peak of the process that starts the other
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 2**28 and before + 2**25 < after < before + 2**27


def test_without_a_record_of_linux_the_peak_is_what_the_system_notes(monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    usage = type("Usage", (), {"ru_maxrss": 3 * 2**20})
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    for system, expected in (("Linux", 3 * 2**30), ("Darwin", 3 * 2**20)):
        monkeypatch.setattr(memory.platform, "system", lambda: system)
        assert memory.peak_host_bytes() == expected
    monkeypatch.setattr(memory.os, "name", "nt")
    assert memory.peak_host_bytes() is None
