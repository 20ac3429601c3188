import pytest
from lightning.pytorch.loggers import Logger
from PIL.Image import new

from smallbatch.callbacks.mirrors import Mirror


class Breaking(Logger):
    """Fails in one of its methods."""

    name, version = "breaking", None

    def __init__(self, where):
        super().__init__()
        self.where, self.calls = where, []
        self.called("start")

    def called(self, what):
        self.calls.append(what)
        if what == self.where:
            raise RuntimeError(f"cannot {what}\nand more")

    def log_metrics(self, metrics, step=None):
        self.called("log_metrics")

    def log_hyperparams(self, params):
        self.called("log_hyperparams")

    def finalize(self, status):
        self.called("finalize")


@pytest.mark.parametrize("where", ["start", "log_hyperparams", "log_metrics", "finalize"])
def test_a_mirror_that_breaks_is_told_in_one_line_and_then_left_alone(where):
    said, made = [], []

    def make():
        made.append(Breaking.__new__(Breaking))
        made[0].__init__(where)
        return made[0]

    mirror = Mirror("breaking", make, said.append)
    mirror.log_hyperparams({})
    for _ in range(3):
        mirror.log_metrics({"a": 1.0}, step=1)
    mirror.log_image("picture", new("RGB", (2, 2)), 1)
    mirror.close("finished")
    (line,) = said
    assert f"logger=breaking failed (cannot {where})" in line and "\n" not in line
    assert made[0].calls.count(where) == 1 and made[0].calls[-1] == where
