"""vLLM as a further engine behind the same client, where it is installed. Importing this does not import it."""

from workbench.engine.vllm.availability import vllm_obstacle

__all__ = ["vllm_obstacle"]
