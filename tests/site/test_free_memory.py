"""Memory as the system tells it, and as a control group allows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcondense.site.free_memory import available_memory

MEBIBYTE = 2**20
GROUP = "system.slice/fedcondense-site.service"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 2 GiB left, and no limit."""
    write(tmp_path / "proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable:    2097152 kB\n")
    write(tmp_path / "proc/self/cgroup", f"0::/{GROUP}\n")
    write(tmp_path / "sys/fs/cgroup" / GROUP / "memory.max", "max\n")
    return tmp_path


def test_memory_is_what_the_system_says_is_left(root: Path, tmp_path: Path) -> None:
    assert available_memory(root) == 2048 * MEBIBYTE
    assert available_memory(tmp_path / "none") is None


@pytest.mark.parametrize("group", [GROUP, "system.slice"])
def test_a_control_group_leaves_less_and_files_in_its_cache_count_as_free(
    root: Path, group: str
) -> None:
    folder = root / "sys/fs/cgroup" / group
    write(folder / "memory.max", f"{1000 * MEBIBYTE}\n")
    write(folder / "memory.current", f"{900 * MEBIBYTE}\n")
    write(folder / "memory.stat", f"anon 1\ninactive_file {300 * MEBIBYTE}\nactive_file 2\n")

    assert available_memory(root) == 400 * MEBIBYTE


def test_control_groups_of_the_first_version_count_too(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:devices:/x\n4:cpu,memory:/docker/1\n0::/\n")
    folder = root / "sys/fs/cgroup/memory"  # what a container sees of its own
    write(folder / "memory.limit_in_bytes", f"{512 * MEBIBYTE}\n")
    write(folder / "memory.usage_in_bytes", f"{500 * MEBIBYTE}\n")
    write(folder / "memory.stat", f"inactive_file 1\ntotal_inactive_file {8 * MEBIBYTE}\n")

    assert available_memory(root) == 20 * MEBIBYTE
