"""`workbench aws userdata`: a cloud-init script that makes a serving workbench of a fresh instance. Starts nothing."""

from __future__ import annotations

import sys

import typer

from workbench.aws import UserDataPlan, render_user_data
from workbench.cli.settings_options import takes_settings

__all__ = ["command"]


@takes_settings({"instance_type": "g6e.xlarge"}, plan=UserDataPlan)
def command(ctx: typer.Context, *, plan: UserDataPlan) -> None:
    sys.stdout.write(render_user_data(plan))
