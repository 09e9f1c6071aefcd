"""The documented import path of `LlamaGPU`, and the command `python -m llama_gpu --model_path P --input T`."""

from workbench.llm import LlamaGPU

__all__ = ["LlamaGPU"]


def _main() -> None:
    import argparse
    import sys

    from workbench.errors import WorkbenchError

    parser = argparse.ArgumentParser(
        prog="llama_gpu", description="Complete a prompt; `workbench generate` can do more."
    )
    parser.add_argument("--model_path", "--model-path", default="default", help='"default", a folder, a hub id, ...')
    parser.add_argument("--input", required=True, help="the prompt")
    arguments = parser.parse_args()
    try:
        with LlamaGPU(arguments.model_path) as llm:
            print(llm.infer(arguments.input))
    except WorkbenchError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    _main()
