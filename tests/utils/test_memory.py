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
