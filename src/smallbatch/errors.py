"""The one error a user is meant to see: a line that names the value and the fix, with no traceback."""


class UserError(Exception):
    """Raised before training starts wherever input is wrong; the command line prints its message and exits with 1."""

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Without what a terminal would obey: a file's name may hold any character."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def refuse_unless_positive(where: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{where}: {name}={value} must be above 0")
