"""What the missing zeroing does here: how many updates the same program needs to its stop with zeroed gradients."""

from stages.evaluate.evidence import Evidence
from stages.evaluate.figures import Answer
from stages.evaluate.second_run import updates_to_stop

PATIENCE = 10  # times the iterations that the article allows


def answer(e: Evidence) -> Answer | None:
    """None where the settings are not the article's, or the run did not stop."""
    if e.differs or e.metrics["stopped"] != "loss":
        return None
    allowed = e.train.model_dump()["iterations"]
    needed = updates_to_stop(e.with_settings(zero_grad=True), PATIENCE * allowed)
    return None if needed is None else Answer(values={"zeroed_updates": needed, "allowed": allowed}, figures={})
