"""Widgets for JupyterLab: a panel and its parts, each usable alone. Long work is never done in a callback."""

from __future__ import annotations

from widgets.aws_advice import AWSAdvice
from widgets.carry_on_box import CarryOnBox
from widgets.chat_box import ChatBox
from widgets.endpoint_card import EndpointCard
from widgets.gpu_map import GPUMap
from widgets.live_plot import LivePlot, MemoryMonitor, ThroughputMonitor
from widgets.load_bar import LoadBar
from widgets.model_picker import ModelPicker
from widgets.next_tokens import NextTokens
from widgets.plan_card import PlanCard
from widgets.plugins_card import PluginsCard
from widgets.quantization_tradeoff import QuantizationTradeoff
from widgets.run_history import RunHistory
from widgets.token_heatmap import TokenHeatmap
from widgets.workbench import Workbench

__all__ = [
    "AWSAdvice",
    "CarryOnBox",
    "ChatBox",
    "EndpointCard",
    "GPUMap",
    "LivePlot",
    "LoadBar",
    "MemoryMonitor",
    "ModelPicker",
    "NextTokens",
    "PlanCard",
    "PluginsCard",
    "QuantizationTradeoff",
    "RunHistory",
    "ThroughputMonitor",
    "TokenHeatmap",
    "Workbench",
]
