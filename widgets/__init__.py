"""Widgets for JupyterLab: a panel and its parts, each usable alone. Long work is never done in a callback."""

from __future__ import annotations

from widgets.chat_box import ChatBox
from widgets.endpoint_card import EndpointCard
from widgets.gpu_map import GPUMap
from widgets.live_plot import LivePlot, MemoryMonitor, ThroughputMonitor
from widgets.load_bar import LoadBar
from widgets.model_picker import ModelPicker
from widgets.workbench import Workbench

__all__ = [
    "ChatBox",
    "EndpointCard",
    "GPUMap",
    "LivePlot",
    "LoadBar",
    "MemoryMonitor",
    "ModelPicker",
    "ThroughputMonitor",
    "Workbench",
]
