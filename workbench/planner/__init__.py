"""A plan before loading: what a model takes, how fast it would be, what would make it fit. Importing loads no torch."""

from workbench.planner.planning import plan
from workbench.planner.rates import DeviceRates
from workbench.planner.result import Advice, DevicePlan, Plan, SpeedPlan
from workbench.planner.verdict import Verdict

__all__ = ["Advice", "DevicePlan", "DeviceRates", "Plan", "SpeedPlan", "Verdict", "plan"]
