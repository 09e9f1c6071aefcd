"""How long running streams wait for their next token while a long new prompt is computed in chunks beside them.

python benchmarks/stall.py --streams 8 --prompt 4096
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

from workbench import EngineConfig, LlamaGPU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--quant-type")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=4096)
    parser.add_argument("--chunk", type=int, help="max_prompt_tokens_beside_decodes")
    arguments = parser.parse_args()
    config = EngineConfig(max_prompt_tokens_beside_decodes=arguments.chunk, enable_prefix_caching=False)
    with LlamaGPU(arguments.model, quant_type=arguments.quant_type, engine=config, check_plan=False) as llm:
        llm.wait_until_compiled()
        arrivals: list[list[float]] = [[] for _ in range(arguments.streams)]
        running = [llm.submit(f"Story number {i}:", max_tokens=None, ignore_eos=True) for i in range(arguments.streams)]

        def follow(number: int) -> None:
            for _ in running[number]:
                arrivals[number].append(time.perf_counter())

        threads = [threading.Thread(target=follow, args=(number,)) for number in range(arguments.streams)]
        for thread in threads:
            thread.start()
        while min(map(len, arrivals)) < 40:
            time.sleep(0.01)
        began = time.perf_counter()
        llm.submit([100 + i % 1000 for i in range(arguments.prompt)], max_tokens=1).result()
        ended = time.perf_counter()
        for generation in running:
            generation.abort()
        for thread in threads:
            thread.join()

    def gaps(start: float, end: float) -> list[float]:
        return [
            1000 * (b - a) for each in arrivals for a, b in zip(each, each[1:], strict=False) if a >= start and b <= end
        ]

    before, during = sorted(gaps(0.0, began)), sorted(gaps(began, ended))
    print(
        f"{arguments.streams} streams, a prompt of {arguments.prompt} tokens in {ended - began:.2f} s: a token every "
        f"{statistics.median(before):.0f} ms before, {statistics.median(during):.0f} ms beside it, "
        f"{during[int(0.99 * len(during))]:.0f} ms at 99 %, {during[-1]:.0f} ms at most"
    )


if __name__ == "__main__":
    main()
