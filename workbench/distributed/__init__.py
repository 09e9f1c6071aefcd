"""One model over several processes: tensor and pipeline parallel ranks behind one engine."""

from workbench.distributed.place import Place, layer_spans, tensor_sizes

__all__ = ["Place", "layer_spans", "tensor_sizes"]
