from workbench.backends.cgroup import Cgroup

V1_MOUNTS = (
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "36 31 0:33 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
V1_GROUPS = "4:memory:/docker/ab12\n2:cpu,cpuacct:/docker/ab12\n0::/\n"


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Cgroup(root)


def test_no_cgroups_no_limit(tmp_path):
    assert Cgroup(tmp_path).memory_limit() is None
    assert Cgroup(tmp_path).cpu_quota() is None


def test_v1_in_a_container_that_sees_only_its_part_of_the_tree(tmp_path):
    cgroup = write(
        tmp_path,
        {
            "proc/self/cgroup": V1_GROUPS,
            "proc/self/mountinfo": V1_MOUNTS.format(root="/docker/ab12"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "900\n",
            "sys/fs/cgroup/memory/memory.stat": "cache 500\ntotal_inactive_file 300\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    limit = cgroup.memory_limit()
    assert (limit.limit_bytes, limit.free_bytes) == (1000, 400)
    assert cgroup.cpu_quota() == 2.5


def test_v1_without_limits(tmp_path):
    cgroup = write(
        tmp_path,
        {
            "proc/self/cgroup": V1_GROUPS,
            "proc/self/mountinfo": V1_MOUNTS.format(root="/"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cgroup.memory_limit() is None
    assert cgroup.cpu_quota() is None


def test_v2_the_tightest_folder_on_the_way_up_wins(tmp_path):
    cgroup = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "proc/self/mountinfo": "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/a/memory.max": "5000\n",
            "sys/fs/cgroup/a/memory.current": "4500\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/b/memory.current": "100\n",
            "sys/fs/cgroup/a/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n",
        },
    )
    limit = cgroup.memory_limit()
    assert (limit.limit_bytes, limit.free_bytes) == (5000, 500)
    assert cgroup.cpu_quota() == 3.0
