"""`%wb plan` plans what its options say."""

from workbench.magics.tables import plan_of
from workbench.session import LoadChoice


def test_the_options_reach_the_plan() -> None:
    plan = plan_of(LoadChoice("random:tiny", backend="cpu", precision="int8", context_length=64))
    assert (plan.quant, plan.context) == ("int8", 64)
    assert plan.to_dict() != plan_of(LoadChoice("random:tiny", backend="cpu", precision="fp32")).to_dict()
