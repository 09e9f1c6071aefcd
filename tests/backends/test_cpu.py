import pytest

from workbench.backends import CPUBackend
from workbench.backends.processor import Processor
from workbench.errors import ConfigError


def machine(tmp_path, flags="fpu avx2 avx512f avx512_vnni", siblings=("0,2", "1,3", "0,2", "1,3"), files=None):
    """A fake /proc and /sys: two cores with two threads each, unless told otherwise."""
    content = {"proc/cpuinfo": f"processor : 0\nmodel name\t: Test CPU 9000\nflags\t\t: {flags}\n", **(files or {})}
    for cpu, listed in enumerate(siblings):
        content[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = f"{listed}\n"
    for name, text in content.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def backend(root, cpus=frozenset({0, 1, 2, 3})):
    return CPUBackend(Processor(root, affinity=lambda: set(cpus)))


def test_the_real_cpu():
    real = CPUBackend()
    (device,) = real.devices()
    assert real.is_available()
    assert device.name
    assert device.num_cores >= 1
    assert 0 < device.free_bytes <= device.total_bytes
    assert 0 < real.memory().process_bytes <= device.total_bytes
    usage = real.get_memory_usage()
    assert set(usage) == {"total_mb", "used_mb", "available_mb"}
    assert usage["total_mb"] == pytest.approx(usage["used_mb"] + usage["available_mb"])
    assert real.torch_device() == "cpu"
    real.empty_cache()


def test_facts_from_proc(tmp_path):
    (device,) = backend(machine(tmp_path)).devices()
    assert device.name == "Test CPU 9000"
    assert device.architecture.split()[1:] == ["avx2", "avx512f", "avx512_vnni"]
    assert device.dtypes == ("fp32", "bf16", "fp16")


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bf16_where_the_cpu_has_it(tmp_path, flag):
    choice = backend(machine(tmp_path, flags=f"fpu {flag}")).default_dtype()
    assert choice.dtype == "bf16"
    assert flag in choice.reason


def test_fp32_otherwise(tmp_path):
    choice = backend(machine(tmp_path)).default_dtype()
    assert choice.dtype == "fp32"
    assert "emulated" in choice.reason


@pytest.mark.parametrize(("cpus", "num_cores"), [({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 1}, 2)])
def test_hyperthreads_of_one_core_count_once(tmp_path, cpus, num_cores):
    assert backend(machine(tmp_path), cpus).devices()[0].num_cores == num_cores


CGROUP_V2 = {
    "proc/self/cgroup": "0::/pod/box\n",
    "proc/self/mountinfo": "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n",
}


@pytest.mark.parametrize(("quota", "num_cores"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", 4)])
def test_cpu_quota_bounds_the_cores(tmp_path, quota, num_cores):
    files = CGROUP_V2 | {"sys/fs/cgroup/pod/cpu.max": f"{quota}\n"}
    root = machine(tmp_path, siblings=("0", "1", "2", "3"), files=files)
    assert backend(root).devices()[0].num_cores == num_cores


def test_memory_limit_bounds_total_and_free(tmp_path):
    files = CGROUP_V2 | {
        "sys/fs/cgroup/pod/box/memory.max": "64000000\n",
        "sys/fs/cgroup/pod/box/memory.current": "50000000\n",
        "sys/fs/cgroup/pod/box/memory.stat": "anon 1\ninactive_file 20000000\n",
    }
    memory = backend(machine(tmp_path, files=files)).memory()
    assert memory.total_bytes == 64_000_000
    assert memory.free_bytes == 34_000_000


def test_there_is_one_cpu_device():
    with pytest.raises(ConfigError, match="cpu has device 0 only"):
        CPUBackend().memory(1)
