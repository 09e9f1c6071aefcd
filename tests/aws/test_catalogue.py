"""The table's own consistency."""

from __future__ import annotations

import pytest

from workbench.aws import InstanceCatalogue, InstanceKind, Interconnect
from workbench.aws.catalogue import classify_name
from workbench.errors import ConfigError

_FAMILIES = (
    "p3 p3dn p4d p4de p5 p5e p5en p6-b200 p6-b300 p6e-gb200 g3 g3s g4dn g4ad g5 g5g g6 g6e g6f gr6 gr6f g7 g7e "
    "inf1 inf2 trn1 trn1n trn2"
).split()


def test_every_family_is_there():
    families = {row.family for row in InstanceCatalogue.shipped().list()}
    assert set(_FAMILIES) <= families


@pytest.mark.parametrize("row", InstanceCatalogue.shipped().list(), ids=lambda row: row.name)
def test_a_row_is_consistent(row):
    assert row.kind is classify_name(row.name)
    assert row.accelerator_count >= 1
    assert (row.interconnect is Interconnect.NONE) == (row.accelerator_count == 1)
    assert row.num_vcpus > 0 and row.host_memory_bytes > 0 and row.network_gbit_s > 0
    if row.kind is InstanceKind.NEURON:
        assert row.gpu is None and row.gpu_count == 0
        assert "Neuron SDK" in row.not_runnable_reason
    else:
        # The product's name and EC2's figure are the same size, in units of 1000 or 1024.
        assert 0.9 < row.gpu_memory_bytes / 1e9 / row.nominal_gpu_memory_gb < 1.1
    if row.interconnect is Interconnect.NVLINK:
        assert row.gpu.nvlink_gb_s


def test_facts_that_others_got_wrong():
    get = InstanceCatalogue.shipped().get
    assert get("g4dn.16xlarge").gpu_memory_bytes == 16 * 1024**3
    assert get("p4d.24xlarge").nominal_gpu_memory_gb == 320
    assert get("p5.48xlarge").gpu.compute_capability == (9, 0)
    assert get("g4ad.xlarge").gpu.backend_name == "rocm"
    assert get("g4ad.xlarge").gpu.compute_capability is None
    assert "gfx1011" in get("g4ad.xlarge").not_runnable_reason
    assert get("g6f.2xlarge").memory_bytes_per_gpu == 5722 * 1024**2


def test_an_unknown_type_names_its_family_or_all_families():
    with pytest.raises(ConfigError, match="g5.xlarge, g5.2xlarge"):
        InstanceCatalogue.shipped().get("g5.huge")
    with pytest.raises(ConfigError, match="p3, p3dn"):
        InstanceCatalogue.shipped().get("nonsense")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("p7.48xlarge", InstanceKind.GPU),
        ("g8e.xlarge", InstanceKind.GPU),
        ("inf3.xlarge", InstanceKind.NEURON),
        ("trn3u.48xlarge", InstanceKind.NEURON),
        ("m7g.xlarge", InstanceKind.CPU),
        ("c7gn.16xlarge", InstanceKind.CPU),
    ],
)
def test_the_family_name_tells_the_kind(name: str, kind: InstanceKind):
    assert classify_name(name) is kind


def test_every_statement_has_a_source_and_a_year():
    sources = InstanceCatalogue.shipped().sources
    assert sources and all("(20" in source for source in sources)
