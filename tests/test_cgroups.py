"""What a job, a service or a container may use of the machine, read from a made tree of control groups."""

import os

import pytest

from resnetkit import cgroups, cores
from resnetkit.benchmark.job import make_job
from resnetkit.cli.main import main
from resnetkit.training import memory


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The folder of a job's control group, in that of its user."""
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5}, raising=False)
    (tmp_path / "own").write_text("4:memory:/elsewhere\n0::/user.slice/job\n")
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  4 kB\n")
    folder = tmp_path / "user.slice" / "job"
    folder.mkdir(parents=True)
    return folder


def bound_memory(folder, limit):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("700\n")
    (folder / "memory.stat").write_text("anon 400\ninactive_file 200\nactive_file 100\n")


def test_memory_is_what_the_least_limit_on_the_way_up_leaves(job):
    assert memory.free_memory() == 4096
    bound_memory(job, "max")
    assert memory.free_memory() == 4096
    bound_memory(job, 3000)
    assert memory.free_memory() == 2600
    bound_memory(job.parent, 2000)
    assert memory.free_memory() == 1600
    bound_memory(job.parent.parent, 1000)  # all there is in a container
    assert memory.free_memory() == 600
    cgroups.OWN.write_text("0::/\n")
    assert memory.free_memory() == 600


@pytest.mark.parametrize(
    ("own", "above", "count"),
    [
        ("max 100000", "max 100000", 4),
        ("150000 100000", "max 100000", 2),
        ("max 100000", "300000 100000", 3),
        ("150000 100000", "50000 100000", 1),
        ("6400000 100000", "max 100000", 4),
    ],
)
def test_cores_are_as_many_as_the_least_quota_pays_for(job, own, above, count):
    (job / "cpu.max").write_text(f"{own}\n")
    (job.parent / "cpu.max").write_text(f"{above}\n")
    assert cores.core_count() == count and cores.usable_cores() == [0, 1, 2, 5]
    assert make_job("step", "resnet8_cifar").cores == (0, 1, 2, 5)[:count]  # of a benchmark
    assert make_job("step", "resnet8_cifar", threads=4).cores == (0, 1, 2, 5)


def test_more_processes_decode_for_a_gpu(job):
    assert cores.default_workers("cpu") == cores.default_workers("cuda") == 4
    (job / "cpu.max").write_text("100000 100000\n")
    assert cores.default_workers("cpu") == cores.default_workers("cuda") == 1
    (job / "cpu.max").write_text("max 100000\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
        assert (cores.default_workers("cpu"), cores.default_workers("cuda")) == (4, 16)


def test_without_control_groups_all_cores_are_usable(job):
    cgroups.OWN.unlink()
    assert cores.core_count() == 4


@pytest.mark.parametrize(
    ("quota", "set_before", "threads"),
    [
        ("150000 100000", None, "2"),
        ("150000 100000", "3", "3"),
        ("300000 100000", None, None),  # of four threads on three cores PyTorch takes three
        ("max 100000", None, None),
    ],
)
def test_commands_compute_with_the_threads_of_a_quota(job, monkeypatch, quota, set_before, threads):
    (job / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(cores, "CPUS", job)
    for number in (0, 1):
        (job / f"cpu{number}" / "topology").mkdir(parents=True)
        (job / f"cpu{number}" / "topology" / "thread_siblings_list").write_text("0-1\n")
    monkeypatch.setenv("OMP_NUM_THREADS", set_before or "")
    if set_before is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("sys.argv", ["resnet", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("OMP_NUM_THREADS") == threads
