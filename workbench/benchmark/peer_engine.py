"""One engine behind a pipe: reads {"prompts", "new_tokens"} lines, answers {"seconds"} lines.

A script that runs under any interpreter, so that an engine whose packages do not go with ours can have its own; it
imports nothing of this project but for our own engine.
"""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

Prompts = list[list[int]]


class PeerEngine(Protocol):
    """Generates exactly `new_tokens` greedy tokens for each prompt of token ids, all prompts at once.

    Gives seconds between two pieces of the first answer, where the engine streams; else nothing.
    """

    version: str
    vocab_size: int

    def generate(self, prompts: Prompts, new_tokens: int) -> list[float]: ...


class Workbench:
    """This project, through its scheduler. Prefixes are not reused, so that every prompt is computed."""

    def __init__(self, options: argparse.Namespace) -> None:
        from workbench import EngineConfig, LlamaGPU

        config = EngineConfig(
            num_threads=options.threads,
            enable_prefix_caching=False,
            context_length=options.context,
            max_num_seqs=options.sequences,
            draft_model=options.draft_model,
        )
        self._llm = LlamaGPU(options.model, quant_type=options.quant or None, backend=options.backend, engine=config)
        self._llm.wait_until_compiled()
        self.version = f"{options.quant or self._llm.dtype}, {self._llm.runner_reason}"
        self.vocab_size = self._llm.spec.vocab_size

    def generate(self, prompts: Prompts, new_tokens: int) -> list[float]:
        running = [self._llm.submit(prompt, max_tokens=new_tokens, ignore_eos=True) for prompt in prompts]
        # Read as it comes; the others' pieces wait in their mailboxes.
        came_s = [time.perf_counter() for chunk in running[0] if chunk.token_ids]
        for generation in running:
            generation.result()
        return [after - before for before, after in zip(came_s, came_s[1:])]  # noqa: B905


class Generate:
    """transformers' `generate` in bf16; `compiled` adds a static cache and torch.compile."""

    def __init__(self, options: argparse.Namespace, compiled: bool) -> None:
        import torch
        import transformers

        torch.set_num_threads(options.threads)
        self._torch, self._device, self._compiled = torch, _torch_device(options), compiled
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.bfloat16)
        _place(self._model, options)
        if compiled:
            self._model.forward = torch.compile(self._model.forward, dynamic=False)
        self.version = f"bf16, transformers {transformers.__version__}, torch {torch.__version__}"
        self.vocab_size = self._model.config.get_text_config().vocab_size

    def generate(self, prompts: Prompts, new_tokens: int) -> list[float]:
        ids = self._torch.tensor(prompts, device=self._device)
        cache = {"cache_implementation": "static"} if self._compiled else {}
        out = self._model.generate(
            ids,
            attention_mask=self._torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
            **cache,
        )
        assert out.shape[1] == ids.shape[1] + new_tokens
        return []


class ContinuousBatching:
    """transformers' continuous batching in bf16."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch
        import transformers

        torch.set_num_threads(options.threads)
        self._config: Any = transformers.GenerationConfig
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            options.folder, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        _place(self._model, options)
        self.version = f"bf16, transformers {transformers.__version__}, torch {torch.__version__}"
        self.vocab_size = self._model.config.get_text_config().vocab_size

    def generate(self, prompts: Prompts, new_tokens: int) -> list[float]:
        config = self._config(max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        outputs = self._model.generate_batch(prompts, generation_config=config, progress_bar=False)
        assert all(len(output.generated_tokens) == new_tokens for output in outputs.values())
        return []


class LlamaCpp:
    """llama.cpp on the same .gguf file, through the low-level calls of llama-cpp-python: streams share a batch."""

    def __init__(self, options: argparse.Namespace) -> None:
        import llama_cpp
        import numpy

        self._api, self._numpy = llama_cpp, numpy
        llama_cpp.llama_backend_init()
        model_options = llama_cpp.llama_model_default_params()
        model_options.use_extra_bufts = options.llama_extra_buffers
        model_options.n_gpu_layers = 0 if options.backend == "cpu" else 999
        self._model = llama_cpp.llama_model_load_from_file(str(options.gguf).encode(), model_options)
        context_options = llama_cpp.llama_context_default_params()
        context_options.n_ctx = options.context * options.sequences
        context_options.n_seq_max, context_options.kv_unified = options.sequences, True
        context_options.n_batch = context_options.n_ubatch = 512
        context_options.n_threads = context_options.n_threads_batch = options.threads
        self._context = llama_cpp.llama_init_from_model(self._model, context_options)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        extra = "with" if options.llama_extra_buffers else "without"
        self.version = (
            f"{options.gguf.suffixes[-2][1:]}, llama-cpp-python {llama_cpp.__version__}, {extra} extra buffers"
        )

    def generate(self, prompts: Prompts, new_tokens: int) -> list[float]:
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)
        chosen = []
        for sequence, prompt in enumerate(prompts):
            last = len(prompt) - 1
            rows = [(token, position, sequence, position == last) for position, token in enumerate(prompt)]
            for begin in range(0, len(rows), 512):
                self._decode(rows[begin : begin + 512])
            chosen.append(self._likeliest(-1))
        for step in range(new_tokens - 1):
            self._decode([(token, len(prompts[s]) + step, s, True) for s, token in enumerate(chosen)])
            chosen = [self._likeliest(row) for row in range(len(chosen))]
        return []

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        batch = self._api.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wants_logits) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wants_logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        status = self._api.llama_decode(self._context, batch)
        self._api.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status}")

    def _likeliest(self, row: int) -> int:
        logits = self._api.llama_get_logits_ith(self._context, row)
        return int(self._numpy.ctypeslib.as_array(logits, shape=(self.vocab_size,)).argmax())


class Vllm:
    """vLLM's offline engine in bf16."""

    def __init__(self, options: argparse.Namespace) -> None:
        # On a CPU it takes a share of all memory, which must be free, and cores that it chooses, unless it is told.
        on_cpu = options.backend == "cpu"
        if on_cpu:
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{options.threads - 1}"
        import vllm

        self._vllm = vllm
        self._llm = vllm.LLM(
            model=str(options.folder),
            dtype="bfloat16",
            max_model_len=options.context,
            enable_prefix_caching=False,
            kv_cache_memory_bytes=2**30 if on_cpu else None,
        )
        self.version = f"bf16, vllm {vllm.__version__}"
        self.vocab_size = self._llm.llm_engine.model_config.get_vocab_size()

    def generate(self, prompts: Prompts, new_tokens: int) -> list[float]:
        params = self._vllm.SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True)
        inputs: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
        self._llm.generate(inputs, params, use_tqdm=False)
        return []


def _serve(options: argparse.Namespace, *, batching: bool) -> PeerEngine:
    # By its path: under another interpreter this package cannot be imported.
    spec: Any = importlib.util.spec_from_file_location("served_peer", Path(__file__).with_name("served_peer.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    engine: PeerEngine = module.TransformersServe(
        options.folder, _torch_device(options), options.threads, batching=batching
    )
    atexit.register(engine.stop)  # type: ignore[attr-defined]
    return engine


ENGINES: dict[str, Callable[[argparse.Namespace], PeerEngine]] = {
    "workbench": Workbench,
    "transformers": lambda options: Generate(options, compiled=False),
    "transformers-compiled": lambda options: Generate(options, compiled=True),
    "transformers-batching": ContinuousBatching,
    "transformers-serve": lambda options: _serve(options, batching=False),
    "transformers-serve-batching": lambda options: _serve(options, batching=True),
    "llama.cpp": LlamaCpp,
    "vllm": Vllm,
}


def main() -> None:
    options = _options()
    # Python puts a script's folder first: a library that imports a name like those of our files must not find ours.
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
    # Libraries print where they like; the pipe carries answers only.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine: PeerEngine = ENGINES[options.name](options)
    started = {"version": engine.version, "vocab_size": engine.vocab_size, "gpu_uuid": _gpu_uuid(options.backend)}
    print(json.dumps(started), file=answers)
    for line in sys.stdin:
        task = json.loads(line)
        begun_s = time.perf_counter()
        gaps_s = engine.generate(task["prompts"], task["new_tokens"])
        print(json.dumps({"seconds": time.perf_counter() - begun_s, "gaps_s": gaps_s}), file=answers)


def _place(model: Any, options: argparse.Namespace) -> None:
    model.to(_torch_device(options)).eval()


def _torch_device(options: argparse.Namespace) -> str:
    # ROCm devices are called cuda too.
    return "cpu" if options.backend == "cpu" else "cuda"


def _gpu_uuid(backend: str) -> str | None:
    """The GPU in use, where this engine computes with torch on CUDA."""
    torch: Any = sys.modules.get("torch")
    if backend != "cuda" or torch is None or not torch.cuda.is_available():
        return None
    return str(getattr(torch.cuda.get_device_properties(0), "uuid", "")) or None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ENGINES)
    parser.add_argument("--model", required=True, help="as LlamaGPU takes it")
    parser.add_argument("--folder", type=Path, help="the model in transformers' form")
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True, help="tokens of one request")
    parser.add_argument("--sequences", type=int, default=8, help="requests at once")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--quant", default="", help="of our own engine")
    parser.add_argument("--draft-model", help="of our own engine")
    parser.add_argument("--llama-extra-buffers", action="store_true", help="let llama.cpp repack weights (its default)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
