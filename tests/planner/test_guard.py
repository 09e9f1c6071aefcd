"""A load is planned, measured and remembered; a plan that says no warns and stops nothing."""

import statistics
import warnings
from types import SimpleNamespace

import pytest

from workbench import EngineConfig, LlamaGPU, PlanWarning, plan
from workbench.backends import MemoryInfo
from workbench.errors import ConfigError
from workbench.models import Catalogue
from workbench.planner import Calibration
from workbench.planner.guard import LoadGuard
from workbench.telemetry import GPUUsage
from workbench.telemetry.device_usage import DeviceUsage


@pytest.fixture
def full_host(monkeypatch):
    """A host that says it has nothing free. (The loader asks elsewhere, and there is really more.)"""
    monkeypatch.setattr(
        "workbench.planner.target.CPUBackend.device",
        lambda self, index=0, real=LlamaGPU: _small_device(),
    )


def _small_device():
    from workbench.backends import DeviceInfo

    return DeviceInfo(0, "small", 10**9, 0, ("fp32", "bf16", "fp16"), None, 2)


def test_a_plan_that_says_no_warns_and_the_model_is_loaded(full_host):
    with pytest.warns(PlanWarning, match="does not fit.*check_plan=False") as caught:
        llm = LlamaGPU("random:tiny", backend="cpu", context_length=512)
    assert caught[0].filename == __file__
    with llm:
        assert llm.infer([1, 2, 3], max_tokens=2) is not None
        assert not llm.plan.fits


def test_check_plan_off_says_nothing_and_has_no_plan(full_host):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with LlamaGPU("random:tiny", backend="cpu", check_plan=False) as llm:
            assert llm.plan is None
            with pytest.raises(ConfigError, match="check_plan=True"):
                llm.comparison()


def test_a_model_that_cannot_be_planned_loads_all_the_same(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no plan today")

    monkeypatch.setattr("workbench.planner.guard.plan", fail)
    with LlamaGPU("random:tiny", backend="cpu") as llm:
        assert llm.plan is None
        assert llm.is_loaded


def test_what_was_measured_stands_beside_the_plan_and_corrects_the_next():
    with LlamaGPU("random:tiny", backend="cpu", engine=EngineConfig(context_length=512)) as llm:
        for start in range(2):
            llm.submit(list(range(start, start + 40)), max_tokens=20, ignore_eos=True).result()
        comparison = llm.comparison()
        rows = {row.what: row for row in comparison.rows}
        assert rows["weights"].ratio == pytest.approx(1.0, abs=0.01)
        assert rows["memory without the cache"].measured > 0
        assert rows["tokens/s of one request"].measured > 0
        assert rows["time to the first token"].unit == "s"
        assert "measured" in str(comparison) and "<table>" in comparison._repr_html_()
        assert len(comparison.to_dataframe()) == len(rows)
        before, answers = llm.plan, llm.answers.rows
        # What runs here counts before it is unloaded.
        during = plan("random:tiny", backend="cpu", context=256)
        assert "corrected" in during.speed.calibration
    after = plan("random:tiny", backend="cpu", context=512)
    assert before.speed.calibration is None
    assert "corrected" in after.speed.calibration
    measured_s = statistics.median(1 / row.decode_tokens_per_s for row in answers)
    for corrected in (during, after):
        assert corrected.predictor.decode_s(1, mean_context=50) == pytest.approx(measured_s, rel=0.05)
    assert Calibration.read().memory_offset(after.predictor.device_key, after.predictor.model_class) != 0


def test_of_a_gpu_only_what_the_engine_took_counts(monkeypatch):
    # Others load and unload meanwhile, and a notebook has tensors of its own there.
    had = DeviceUsage(used=90_000, process=7_000)
    monkeypatch.setattr(GPUUsage, "read_usage", lambda self: had)
    gpu = SimpleNamespace(device_type="cuda", name="cuda")
    guard = LoadGuard(Catalogue().resolve("random:tiny"), gpu, 0, "bf16", EngineConfig())
    guard.plan = plan("random:tiny", backend="cpu", context=64)

    def measured(here_bytes, elsewhere_bytes):
        record = guard.loaded(weight_bytes=1, kv_bytes=50, here_bytes=here_bytes, elsewhere_bytes=elsewhere_bytes)
        return {row.what: row.measured for row in record.comparison().rows}.get("memory without the cache")

    assert measured(7_400, 0) == 350
    assert measured(7_000, 1_000) == 950
    # Nobody says what the engine has.
    assert measured(7_000, 0) is None


def test_figures_of_a_running_engine():
    with LlamaGPU("random:tiny", backend="cpu", context_length=256) as llm:
        running = [llm.submit([i, 2, 3], max_tokens=8, ignore_eos=True) for i in range(3)]
        for generation in running:
            generation.result()
        stats = llm.stats()
        assert stats.inter_token_s.count == 3 * 7
        assert stats.batch_size.count == stats.steps_total
        assert 3 <= stats.kv_blocks_peak <= stats.kv_blocks_total
        assert len(llm.answers) == 3
        assert all(row.queue_s is not None and row.queue_s <= row.ttft_s for row in llm.answers.rows)
        owners = llm.memory_owners()
        assert owners.weights == llm.weight_bytes
        assert owners.kv == stats.kv_blocks_peak * llm.limits.kv_bytes // llm.limits.num_blocks
        memory: MemoryInfo = llm.backend.memory()
        resident = owners.used - owners.others
        assert resident == pytest.approx(memory.process_bytes, rel=0.02)


def test_a_profile_splits_steps_and_puts_the_engine_back(tmp_path):
    with LlamaGPU("random:tiny", backend="cpu", context_length=256) as llm:
        expected = llm.infer([5, 6, 7], max_tokens=8)
        profile = llm.profile(batch=2, max_tokens=4)
        assert len(profile.steps) >= 4
        totals = profile.totals()
        assert totals["forward"] > 0 and totals["prepare"] > 0 and totals["sample"] > 0 and totals["detokenise"] > 0
        assert sum(step.num_decodes for step in profile.steps) >= 6
        assert any(row.name.startswith("aten::") for row in profile.operations)
        assert any("Linear" in path for path in profile.stacks)
        assert profile.save_trace(tmp_path / "t.json").stat().st_size > 1000
        assert llm.infer([5, 6, 7], max_tokens=8) == expected
        assert llm.profile([1, 2], max_tokens=2, operations=False).operations == ()
        with pytest.raises(ConfigError, match="batch=0"):
            llm.profile(batch=0)
