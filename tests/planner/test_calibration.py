from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from workbench import plan
from workbench.paths import settings_folder
from workbench.planner import Calibration, Observation
from workbench.planner.calibration import model_class_of, remember

RUN = Observation("decode", "cpu: x", "llama", "default", 1, predicted=0.01, measured=0.02)


def test_nothing_known_changes_nothing():
    empty = Calibration()
    assert empty.factor("decode", "cpu: x", "llama", 1) == 1.0
    assert empty.memory_offset("cpu: x", "llama") == 0
    assert empty.words("cpu: x", "llama") is None


def test_the_median_of_the_newest_runs_of_the_nearest_size_counts():
    runs = [replace(RUN, measured=0.01 * factor) for factor in (9, 9, 2, 2, 2, 3, 4)]
    eight = replace(RUN, size=8, measured=0.05)
    known = Calibration([*runs, eight])
    assert known.factor("decode", "cpu: x", "llama", 1) == pytest.approx(2)
    assert known.factor("decode", "cpu: x", "llama", 2) == pytest.approx(2)
    assert known.factor("decode", "cpu: x", "llama", 12) == pytest.approx(5)
    assert known.factor("prefill", "cpu: x", "llama", 1) == 1.0


def test_other_models_of_the_same_device_stand_in_and_other_devices_do_not():
    known = Calibration([RUN])
    assert known.factor("decode", "cpu: x", "qwen3", 1) == pytest.approx(2)
    assert "other models" in known.words("cpu: x", "qwen3")
    assert known.factor("decode", "cuda: y", "llama", 1) == 1.0


@pytest.mark.parametrize(
    "change", [{"measured": 0.0}, {"measured": float("nan")}, {"measured": 1e9}, {"kind": "colour"}]
)
def test_nonsense_is_left_out(change):
    assert Calibration([replace(RUN, **change)]).factor("decode", "cpu: x", "llama", 1) == 1.0


def test_memory_is_corrected_by_its_difference():
    known = Calibration([Observation("memory", "cpu: x", "llama", "default", 1, predicted=700e6, measured=750e6)])
    assert known.memory_offset("cpu: x", "llama") == 50_000_000


def test_models_of_one_family_and_about_one_size_are_one_class():
    assert model_class_of("llama", 135_000_000, "int8", "bf16") == model_class_of("llama", 140_000_000, "int8", "bf16")
    assert model_class_of("llama", 135_000_000, "int8", "bf16") != model_class_of("llama", 360_000_000, "int8", "bf16")


def test_what_is_remembered_is_read_again_and_bounded():
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: remember([RUN] * 20), range(20)))
    known = Calibration.read()
    assert known.factor("decode", "cpu: x", "llama", 1) == pytest.approx(2)
    assert "256 measurements" in known.words("cpu: x", "llama")


@pytest.mark.parametrize("content", ["", "[]", '{"observations": 3}', '{"observations": [{"kind": "decode"}, 7]}'])
def test_a_damaged_file_is_no_knowledge(content: str):
    settings_folder().mkdir(parents=True)
    (settings_folder() / "calibration.json").write_text(content)
    assert Calibration.read().words("cpu: x", "llama") is None
    remember([RUN])
    assert Calibration.read().words("cpu: x", "llama") is not None


def test_a_folder_that_cannot_be_written_is_logged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file"))
    remember([RUN])
    assert "could not be kept" in caplog.text


def test_a_plan_uses_what_is_known():
    raw = plan("random:tiny", backend="cpu", context=512, calibration=Calibration())
    key, name = raw.predictor.device_key, raw.predictor.model_class
    remember(
        [
            Observation("decode", key, name, "random:tiny", 1, 0.01, 0.02),
            Observation("prefill", key, name, "random:tiny", 512, 0.01, 0.03),
            Observation("memory", key, name, "random:tiny", 1, 500e6, 600e6),
        ]
    )
    learnt = plan("random:tiny", backend="cpu", context=512)
    assert learnt.speed.tokens_per_s == pytest.approx(raw.speed.tokens_per_s / 2)
    assert learnt.speed.ttft_s == pytest.approx(raw.speed.ttft_s * 3)
    assert learnt.needed_bytes - raw.needed_bytes == 100_000_000
    assert "3 measurements" in learnt.speed.calibration
