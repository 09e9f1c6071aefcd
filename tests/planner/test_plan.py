"""`workbench.plan`: numbers from config and headers alone, verdict, advice, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from backends.fake_torch import Cuda, Properties, Version
from model_folders import copy_folder, edit_json
from tiny_gguf import write_tiny_gguf

import workbench
from workbench import CPUBackend, CUDABackend, plan
from workbench.backends import MemoryInfo
from workbench.errors import (
    BackendUnavailableError,
    ConfigError,
    GPUUnavailableError,
    ModelFormatError,
    ModelNotFoundError,
)
from workbench.models.presets import PRESETS
from workbench.models.random_model import make_random_model
from workbench.parallel import GPUConfig
from workbench.planner import Verdict
from workbench.planner.calibration import Calibration
from workbench.planner.model_shape import read_model_shape

GIB = 1024**3


class FakeTorch:
    """A CUDA build with so many GPUs of 80 GiB, all free."""

    def __init__(self, num_gpus: int, name: str = "NVIDIA H100 80GB HBM3") -> None:
        self.version = Version(cuda="13.0")
        gpus = [Properties(name, uuid=f"aaaa-{index}") for index in range(num_gpus)]
        self.cuda = Cuda(gpus, free=[79 * GIB] * num_gpus)


def machine(num_gpus: int) -> CUDABackend:
    return CUDABackend(FakeTorch(num_gpus))


@pytest.fixture
def small_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with 4 GiB, 3 of them free."""
    monkeypatch.setattr("workbench.backends.processor.Processor.memory", lambda self: MemoryInfo(4 * GIB, 3 * GIB, 0))


def test_planning_loads_no_torch() -> None:
    program = (
        "import sys, workbench\n"
        "made = workbench.plan('random:llama-3.1-8b', backend='cpu', context=2048)\n"
        "assert made.needed_bytes > 16e9\n"
        "assert workbench.plan('random:tiny', backend='cpu').fits\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("tiny")])
def test_the_weights_of_a_preset_are_those_of_the_real_model(preset: str) -> None:
    module = make_random_model(preset, device="cpu", dtype="fp32").module
    shape = read_model_shape(f"random:{preset}")
    assert shape.num_parameters == sum(parameter.numel() for parameter in module.parameters())
    assert plan(f"random:{preset}", backend="cpu", quant="fp32").devices[0].parts.weights == sum(
        parameter.nbytes for parameter in module.parameters()
    )


@pytest.mark.parametrize(
    ("preset", "num_parameters"),
    [
        ("smollm2-135m", 134_515_008),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("qwen3-0.6b", 596_049_920),
        ("gemma-2-2b", 2_614_341_888),
    ],
)
def test_published_models_have_their_published_size(preset: str, num_parameters: int) -> None:
    assert read_model_shape(f"random:{preset}").num_parameters == num_parameters


def test_a_folder_is_counted_by_its_headers(tiny_model_folder: Path) -> None:
    made = plan(tiny_model_folder, backend="cpu", quant="fp32", context=128, batch=2)
    stored = sum(weight.stored_bytes for weight in read_model_shape(tiny_model_folder).weights)
    assert made.devices[0].parts.weights == stored
    # Two layers, keys and values of two heads of 16 numbers, in 4 bytes.
    assert made.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4
    # Whole blocks of 16 tokens, and the one that only fills up.
    assert made.devices[0].parts.kv == (2 * 128 + 16) * made.kv_bytes_per_token
    assert "headers" in made.evidence


def test_a_gguf_file_is_counted_by_its_header(tmp_path: Path) -> None:
    made = plan(write_tiny_gguf(tmp_path / "tiny.gguf"), backend="cpu", quant="bf16")
    assert made.devices[0].parts.weights == 2 * made.num_parameters
    assert made.max_context == 256
    assert made.kv_bytes_per_token == 2 * 2 * 2 * 16 * 2


def test_the_embedded_model_can_be_planned_before_it_is_fetched(workbench_home: Path) -> None:
    made = plan(backend="cpu", quant="bf16")
    assert made.devices[0].parts.weights == 2 * 134_515_008
    assert not (workbench_home / "models").exists()


def test_smaller_weights_are_counted_with_their_scales() -> None:
    sizes = {
        quant: plan("random:smollm2-1.7b", backend="cpu", quant=quant, context=512).devices[0].parts.weights
        for quant in ("fp32", "bf16", "int8", "int4")
    }
    assert sizes["fp32"] == 2 * sizes["bf16"]
    assert 0.5 < sizes["int8"] / sizes["bf16"] < 0.51
    assert 0.3 < sizes["int4"] / sizes["bf16"] < 0.35


def test_packed_weights_are_those_of_the_gguf_file(tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    packed = plan(file, backend="cpu", quant="gguf").devices[0].parts.weights
    assert packed < 0.6 * plan(file, backend="cpu", quant="bf16").devices[0].parts.weights
    with pytest.raises(ConfigError, match="no .gguf file"):
        plan("random:tiny", backend="cpu", quant="gguf")


def test_speed_follows_bytes_and_arithmetic() -> None:
    bf16, int8 = (plan("random:llama-3.1-8b", instance="p5.48xlarge", context=2048, batch=64) for _ in range(2))
    assert bf16 == int8
    assert bf16.speed.bound == "memory"
    # The floor of an H100 is 4.48 ms a token, and no kernel reaches it.
    assert 100 < bf16.speed.tokens_per_s < 223
    assert bf16.speed.batch_tokens_per_s > 20 * bf16.speed.tokens_per_s
    assert bf16.speed.prefill_bound == "compute"
    short = plan("random:llama-3.1-8b", instance="p5.48xlarge", context=256)
    assert 64 < short.speed.turning_batch < 1000
    longer = plan("random:llama-3.1-8b", instance="p5.48xlarge", context=8192, prompt_tokens=8192)
    assert longer.speed.ttft_s > 10 * bf16.speed.ttft_s


def test_a_context_of_none_is_what_fits(small_host: None) -> None:
    made = plan("random:qwen3-0.6b", backend="cpu", quant="int8")
    assert made.fits
    assert 256 < made.context < made.max_context
    assert made.context % 16 == 0
    assert any("cut" in note for note in made.notes)


def test_too_large_says_what_would_fit_and_the_change_does_it(small_host: None) -> None:
    made = plan("random:llama-3.2-1b", backend="cpu", quant="fp32", context=16384)
    assert not made.fits
    assert made.verdict is Verdict.DOES_NOT_FIT
    assert made.margin_bytes < 0
    assert made.advice
    for advice in made.advice:
        arguments = {"backend": "cpu", "quant": "fp32", "context": 16384, **advice.change}
        changed = plan("random:llama-3.2-1b", **arguments)
        assert changed.fits, advice
        assert changed.needed_bytes == advice.needed_bytes


def test_a_plan_that_fits_gets_no_advice_and_one_that_nothing_helps_says_so(small_host: None) -> None:
    fitting = plan("random:tiny", backend="cpu", quant="fp32", context=64)
    hopeless = plan("random:llama-3.1-8b", backend="cpu", quant="int4", context=256)
    assert (fitting.fits, fitting.advice, hopeless.fits, hopeless.advice) == (True, (), False, ())
    for made, says in ((fitting, False), (hopeless, True)):
        assert [("choose a smaller model" in words) for words in (str(made), made._repr_html_())] == [says] * 2


def test_tensor_parallel_splits_weights_and_cache() -> None:
    alone = plan("random:llama-3.1-8b", backend=machine(4), context=8192, batch=8)
    split = plan("random:llama-3.1-8b", backend=machine(4), gpus=4, context=8192, batch=8)
    assert [device.label for device in split.devices] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    for device in split.devices:
        # The input table is on every rank.
        assert alone.devices[0].parts.weights / 4 < device.parts.weights < alone.devices[0].parts.weights / 3
        assert device.parts.kv == pytest.approx(alone.devices[0].parts.kv / 4, rel=0.01)
    assert split.speed.tokens_per_s > 2 * alone.speed.tokens_per_s


def test_a_cache_in_8_bits_takes_half_and_is_loaded_so() -> None:
    full = plan("random:llama-3.1-8b", backend=machine(1), context=8192, batch=8)
    half = plan("random:llama-3.1-8b", backend=machine(1), context=8192, batch=8, kv_dtype="fp8")
    assert half.devices[0].parts.kv == full.devices[0].parts.kv // 2
    assert half.load_arguments()["engine"].kv_dtype == "fp8"
    assert full.load_arguments()["engine"].kv_dtype is None
    tight = plan("random:llama-3.1-8b", backend=machine(1), context=8192, batch=64)
    assert {"kv_dtype": "fp8"} in [dict(advice.change) for advice in tight.advice]


def test_layers_in_the_hosts_memory_are_priced_and_loaded_so() -> None:
    whole = plan("random:llama-3.1-8b", backend=machine(1), context=4096)
    kept = plan("random:llama-3.1-8b", backend=machine(1), context=4096, cpu_offload_layers=8)
    moved = kept.host_load_bytes - whole.host_load_bytes
    # 8 of 32 layers: all but the vocabulary's two matrices.
    assert moved == pytest.approx((16.06e9 - 2 * 128_256 * 4096 * 2) / 4, rel=0.01)
    on_device = whole.devices[0].parts.weights - kept.devices[0].parts.weights
    # One matrix, the largest of a layer, is there for a moment.
    assert on_device == moved - 4096 * 14_336 * 2
    # A token waits for all of it to come over the bus.
    assert 1 / kept.speed.tokens_per_s - 1 / whole.speed.tokens_per_s > moved / kept.speed.rates.host_copy_bytes_per_s
    assert kept.speed.bound == "communication"
    assert kept.load_arguments()["engine"].cpu_offload_layers == 8


def test_what_does_not_fit_may_stay_in_the_hosts_memory() -> None:
    # 14.4 GiB for 16.1 GB of weights; the host of every machine that runs this has room for the rest.
    settings = {"backend": machine(1), "context": 2048, "memory_fraction": 0.18}
    (advice,) = [advice for advice in plan("random:llama-3.1-8b", **settings).advice if "keep " in advice.text]
    count = advice.change["cpu_offload_layers"]
    assert advice.text == f"keep {count} layers in the host's memory"
    assert not plan("random:llama-3.1-8b", **settings, cpu_offload_layers=count - 1).fits
    taken = plan("random:llama-3.1-8b", **settings, **advice.change)
    assert taken.fits
    assert taken.speed.tokens_per_s == advice.tokens_per_s


def test_pipeline_deals_out_layers_and_data_deals_out_requests() -> None:
    alone = plan("random:llama-3.1-8b", backend=machine(1), context=8192, batch=8)
    pipeline = plan("random:llama-3.1-8b", backend=machine(2), parallel="pipeline", gpus=2, context=8192, batch=8)
    assert sum(device.parts.weights for device in pipeline.devices) == alone.devices[0].parts.weights
    tied = plan("random:llama-3.2-1b", backend=machine(2), parallel="pipeline", gpus=2)
    whole = plan("random:llama-3.2-1b", backend=machine(1))
    assert sum(device.parts.weights for device in tied.devices) == whole.devices[0].parts.weights
    data = plan("random:llama-3.1-8b", backend=machine(2), parallel={"data": 2}, context=8192, batch=8)
    assert all(device.parts.weights == alone.devices[0].parts.weights for device in data.devices)
    assert data.devices[0].parts.kv == pytest.approx(alone.devices[0].parts.kv / 2, rel=0.01)
    # Half of the requests each: a little faster together than one device with all.
    assert data.speed.batch_tokens_per_s > alone.speed.batch_tokens_per_s


def test_processes_on_the_cpu_share_its_memory_and_its_speed() -> None:
    options = {"backend": "cpu", "quant": "bf16", "context": 1024, "batch": 4, "calibration": Calibration()}
    alone = plan("random:llama-3.2-1b", **options)
    copies = plan("random:llama-3.2-1b", parallel="data", **options)
    shares = plan("random:llama-3.2-1b", parallel=GPUConfig([0, 1], "tensor"), **options)
    assert [device.label for device in copies.devices] == ["cpu:0", "cpu:1"]
    assert all(device.parts.weights == alone.devices[0].parts.weights for device in copies.devices)
    assert shares.devices[0].parts.weights < 0.7 * alone.devices[0].parts.weights
    first, second = copies.devices
    assert first.margin_bytes == second.margin_bytes
    assert first.margin_bytes == pytest.approx(alone.margin_bytes - second.needed_bytes, abs=1 * GIB)
    assert copies.host_load_bytes == first.needed_bytes + second.needed_bytes
    # Half of the bandwidth each, for a whole copy or for half of one.
    assert copies.speed.tokens_per_s < 0.7 * alone.speed.tokens_per_s < shares.speed.tokens_per_s
    assert any("share the cores" in note for note in copies.notes)


def test_copies_that_the_cpu_cannot_hold_are_advised_into_one_process(small_host: None) -> None:
    made = plan("random:llama-3.2-1b", backend="cpu", quant="bf16", context=1024, parallel="data")
    assert not made.fits
    assert [dict(advice.change) for advice in made.advice] == [{"parallel": None}]
    with pytest.raises(ConfigError, match="has none"):
        plan("random:tiny", backend="cpu", gpus=2)


def test_advice_on_a_gpu_names_the_other_gpus_and_the_cpu() -> None:
    made = plan("random:llama-3.1-70b", backend=machine(4), context=4096)
    changes = [dict(advice.change) for advice in made.advice]
    assert {"gpus": [0, 1, 2, 3], "parallel": "tensor"} in changes or {"gpus": [0, 1], "parallel": "tensor"} in changes


def test_a_loaded_model_counts_as_given_back(small_host: None) -> None:
    now = plan("random:tiny", backend="cpu")
    after = plan("random:tiny", backend="cpu", reclaim_bytes=10**9)
    assert after.devices[0].available_bytes - now.devices[0].available_bytes == pytest.approx(10**9, abs=50e6)


def test_the_line_is_the_same_each_time_and_holds_no_moving_number() -> None:
    first, second = (plan("random:tiny", backend="cpu", context=512) for _ in range(2))
    assert repr(first) == repr(second)
    assert "fits" in repr(first)
    assert "free" not in repr(first)


def test_it_is_plain_values_and_html() -> None:
    made = plan("random:tiny", backend="cpu", context=512)
    values = json.loads(json.dumps(made.to_dict()))
    assert values["fits"] is True
    assert values["devices"][0]["parts"]["weights"] == made.devices[0].parts.weights
    page = made._repr_html_()
    assert "KV cache" in page and "fits" in page and "<script" not in page
    assert "KV cache" in str(made)
    # Of the host, which the table says nothing of, only where that is the reason.
    assert "host while loading" not in page
    short = replace(made, host_load_bytes=2 * 10**9, host_available_bytes=10**9, host_verdict=Verdict.DOES_NOT_FIT)
    assert "host while loading: 2 GB of 1 GB: does not fit" in short._repr_html_()


def test_a_draft_model_on_a_gpu_is_counted_there_and_not_on_the_host() -> None:
    facts = {"instance": "g6e.xlarge", "context": 4096}
    alone = plan("random:llama-3.1-8b", **facts)
    helped = plan("random:llama-3.1-8b", draft_model="random:llama-3.2-1b", **facts)
    draft = plan("random:llama-3.2-1b", **facts)
    parts = [one.devices[0].parts for one in (alone, helped, draft)]
    for name in ("weights", "kv", "graphs"):
        own, both, other = (getattr(part, name) for part in parts)
        assert both == own + other, name
    assert helped.host_load_bytes == alone.host_load_bytes


def test_a_name_is_escaped_in_html() -> None:
    made = replace(plan("random:tiny", backend="cpu"), model="<script>")
    assert "<script" not in made._repr_html_()


def test_what_was_planned_can_be_loaded() -> None:
    made = plan("random:tiny", backend="cpu", context=512, batch=3)
    with workbench.LlamaGPU(**made.load_arguments()) as llm:
        assert llm.max_context == 512
        # The rotary tables are weights to the loader.
        assert llm.weight_bytes == pytest.approx(made.devices[0].parts.weights, abs=1000)
        assert llm.limits.kv_bytes == 3 * 512 * made.kv_bytes_per_token


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"batch": 0}, ConfigError, "batch=0"),
        ({"batch": True}, ConfigError, "batch=True"),
        ({"context": 0}, ConfigError, "context=0"),
        ({"context": 2049}, ConfigError, "at most 2048"),
        ({"quant": "int3"}, ConfigError, "int8"),
        ({"backend": "tpu"}, ConfigError, "cuda"),
        ({"backend": "cuda"}, BackendUnavailableError, "cuda"),
        ({"backend": "cpu", "gpus": [0]}, ConfigError, "cpu"),
        ({"gpus": 0}, ConfigError, "gpus=0"),
        ({"gpus": []}, ConfigError, "gpus=[]"),
        ({"kv_dtype": "int3"}, ConfigError, "kv_dtype='int3'"),
        ({"cpu_offload_layers": 1}, ConfigError, "on a CPU every layer is in the host's memory"),
        ({"cpu_offload_layers": 0}, ConfigError, "cpu_offload_layers=0: must be"),
        ({"draft_model": "random:smollm2-135m"}, ConfigError, "has a vocabulary of 49,152 tokens, and"),
        (
            {"draft_model": "random:tiny", "backend": "cpu", "parallel": {"data": 2}},
            ConfigError,
            "guesses nothing ahead",
        ),
        ({"parallel": "sideways"}, ConfigError, "sideways"),
        ({"parallel": {"tensor": 0}}, ConfigError, "tensor=0"),
        ({"parallel": {"rows": 2}}, ConfigError, "rows"),
        ({"instance": "z9.large"}, ConfigError, "z9.large"),
        ({"instance": "inf2.xlarge"}, BackendUnavailableError, "Neuron"),
        ({"instance": "g6.xlarge", "gpus": 2}, GPUUnavailableError, "has 1"),
    ],
)
def test_bad_input_says_what_is_allowed(arguments: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        plan("random:tiny", **arguments)
    assert words in str(caught.value)


def test_gpus_that_are_not_there_are_named_with_those_that_are() -> None:
    with pytest.raises(GPUUnavailableError, match=r"\[2\].*0 = NVIDIA H100"):
        plan("random:tiny", backend=machine(2), gpus=[0, 2])


def test_a_split_that_heads_do_not_allow_is_refused() -> None:
    with pytest.raises(ConfigError, match="9 heads and 3 KV heads; allowed: 1, 3, 9"):
        plan("random:smollm2-135m", backend=machine(2), gpus=2)


def test_an_unknown_architecture_is_refused_with_near_ones(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_model_folder, tmp_path / "odd")
    edit_json(folder / "config.json", model_type="lama", architectures=["LamaForCausalLM"])
    with pytest.raises(ModelFormatError, match="'lama'.*did you mean llama"):
        plan(folder, backend="cpu")


def test_layers_that_the_cache_cannot_hold_are_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_model_folder, tmp_path / "odd")
    edit_json(folder / "config.json", layer_types=["full_attention", "linear_attention"])
    with pytest.raises(ModelFormatError, match="linear_attention"):
        plan(folder, backend="cpu")


def test_no_such_model() -> None:
    with pytest.raises(ModelNotFoundError):
        plan("random:nothing")


def test_a_cpu_backend_object_can_be_named() -> None:
    assert plan("random:tiny", backend=CPUBackend()).backend_name == "cpu"
