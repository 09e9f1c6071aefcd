"""A plan before loading: what a model takes, how fast it would be, what would make it fit. Importing loads no torch."""

from workbench.planner.calibration import Calibration, Observation
from workbench.planner.comparison import ComparedRow, Comparison, LoadRecord
from workbench.planner.guard import LoadGuard, PlanWarning
from workbench.planner.measure import measure
from workbench.planner.planning import plan
from workbench.planner.rates import DeviceRates
from workbench.planner.result import Advice, DevicePlan, Plan, RooflinePoint, SpeedPlan
from workbench.planner.verdict import Verdict

__all__ = [
    "Advice",
    "Calibration",
    "ComparedRow",
    "Comparison",
    "DevicePlan",
    "DeviceRates",
    "LoadGuard",
    "LoadRecord",
    "Observation",
    "Plan",
    "PlanWarning",
    "RooflinePoint",
    "SpeedPlan",
    "Verdict",
    "measure",
    "plan",
]
