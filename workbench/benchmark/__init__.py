"""Speed, memory and energy of a model here, beside other engines, and of an endpoint under load."""

from workbench.benchmark.engine_choice import ENGINE_NAMES, EngineChoice
from workbench.benchmark.figures import EngineFigures, Report
from workbench.benchmark.load import Load, run_load
from workbench.benchmark.load_report import LoadReport
from workbench.benchmark.measuring import run_benchmark
from workbench.benchmark.page import load_page, report_page
from workbench.benchmark.spread import Spread
from workbench.benchmark.workload import Workload

__all__ = [
    "ENGINE_NAMES",
    "EngineChoice",
    "EngineFigures",
    "Load",
    "LoadReport",
    "Report",
    "Spread",
    "Workload",
    "load_page",
    "report_page",
    "run_benchmark",
    "run_load",
]
