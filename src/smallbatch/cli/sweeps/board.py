"""What one sees of a running sweep: a table that moves, or without a terminal a line whenever a job changes."""

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from smallbatch.cli.sweeps.jobs import Job, Running


class Board:
    """Of the jobs that run: where, for how long, and the last line of their log."""

    def __init__(self, states: Mapping[Job, str], running: Mapping[Job, Running]):
        self.states, self.running, self.said = states, running, dict[Job, str]()
        self.console = Console(stderr=True, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> "Board":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def show(self) -> None:
        if self.console.is_terminal:
            self.live.update(Group(self.table(), self.counts()), refresh=True)
            return
        for job, state in self.states.items():
            if state not in (self.said.get(job), "waiting"):
                self.said[job] = state
                self.console.print(Text(f"{state:15} {job.name}  {job.folder}"))

    def table(self) -> Table:
        table = Table("job", "where", "minutes", "", box=None, padding=(0, 2, 0, 0))
        for job, running in self.running.items():
            minutes = f"{(time.monotonic() - running.since) / 60:.1f}"
            last = "".join(job.tail(1))
            table.add_row(*map(Text, (job.name, str(running.place), minutes, last)))
        return table

    def counts(self) -> Text:
        return Text(", ".join(f"{n} {state}" for state, n in Counter(self.states.values()).items()))

    def failed(self, job: Job, tail: list[str]) -> None:
        self.console.print(Text("\n".join([f"failed: {job.name}", *(f"    {line}" for line in tail)])))
