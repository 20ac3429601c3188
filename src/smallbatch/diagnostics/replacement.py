"""The truth in place of the prediction, inside a window of the reverse process: what it does for the image."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from smallbatch.data.images import shrunk, to_pixels
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Row, Subject, Table, estimated, names
from smallbatch.diagnostics.replacement_figure import draw
from smallbatch.diagnostics.windows import NOTHING, Window, bounds, fixed, refuse_empty, sliding
from smallbatch.errors import UserError
from smallbatch.generation import Numbers
from smallbatch.likeness import CAP, colour_drift, psnr, rmse
from smallbatch.metrics.rows import spread
from smallbatch.notation import Denoise, Denoised, Image, NoiseLevel, PerImage, Pixels, Time
from smallbatch.pictures import labelled
from smallbatch.plots import COLOURS, drawn, figure
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Sampler
from smallbatch.schedules import NoiseSchedule
from smallbatch.wrappers import swapped

PAPER = ((1, 10), (10, 100), (100, 500), (500, 1000), (1, 500))
SHOWN = 8  # images in the picture


class Replacement(Diagnostic):
    """Xie & Agam 2025 (2502.01990), Fig. 3a: in a window of the sampler's steps the true x0, equally the noise that
    x_t then holds, takes the place of what was predicted. Sampling starts from the held-out image under noise: the
    little that x_t tells of it at the first level is then the same with and without replacement.

    The last step returns its x0. A window that holds it returns the truth by construction, whatever was learned; so
    the last `excluded` steps are never replaced, and rows with `excluded` 0 show what becomes of windows that may hold
    them. `windows` are pairs of ends in thousandths of the time, both included; None: the paper's, as far as they hold
    a step. The sliding window is `width` steps wide and moves by as many; with `excluded` 0 stands the one window that
    ends with the last step. PSNR ends at `likeness.CAP`.
    """

    most_runs, of_pixels = len(COLOURS), True

    def __init__(
        self, images: int = 32, windows: Sequence[Sequence[float]] | None = None, width: int = 5, excluded: int = 1
    ):
        for name, value, least in (("images", images, 2), ("width", width, 1), ("excluded", excluded, 0)):
            if value < least:
                raise UserError(f"diagnostics.replacement.{name}={value} must be at least {least}")
        for window in windows or ():
            if len(window) != 2 or not 0 <= window[0] <= window[1] <= 1000:
                raise UserError(f"diagnostics.replacement.windows: {list(window)} needs 0 <= low <= high <= 1000")
        self.images, self.windows, self.width, self.excluded = images, windows, width, excluded

    def check(self, case: Case) -> None:
        for one in case.subjects:
            self.plan(case.sampler.times(one.denoiser.schedule, case.device))

    def measure(self, case: Case) -> Found:
        times = {one.name: case.sampler.times(one.denoiser.schedule, case.device) for one in case.subjects}
        plans = {name: self.plan(some) for name, some in times.items()}
        numbers = spread(min(self.images, case.held_out.count), case.held_out.count)
        tasks = [(one, steps) for one in case.subjects for steps in dict.fromkeys(w.steps for w in plans[one.name])]
        made = {
            (one.name, steps): outcome(case, one, numbers, steps)
            for one, steps in case.track(tasks, "replacement", len(tasks))
        }
        rows, shown = [], [("the truth", to_pixels(case.held_out.take(numbers[:SHOWN]).x0))]
        for one, window in [(run, window) for run in case.subjects for window in plans[run.name]]:
            found, plain = (made[one.name, steps] for steps in (window.steps, NOTHING))
            rows.append(row(one, window, times[one.name], found, plain))
            if window.kind != "sliding" and window.excluded == self.excluded:
                shown.append((f"{one.name}  {window.name}", found.first))
        return Found(rows, {"images": labelled(shown)})

    def plan(self, times: Time) -> list[Window]:
        """What is looked at: nothing replaced, then windows that may hold the last steps, then those that may not."""
        if self.width > len(times) - self.excluded:
            raise UserError(
                f"diagnostics.replacement: width={self.width} beside excluded={self.excluded} does not fit into the "
                f"sampler's {len(times)} steps: give more steps="
            )
        refuse_empty(times, self.windows or (), "diagnostics.replacement.windows")
        found = [Window("none", "nothing", self.excluded, NOTHING)]
        if self.excluded:
            found += fixed(times, self.windows or PAPER, 0) + sliding(len(times), self.width, 0)[:1]
        found += fixed(times, self.windows or PAPER, self.excluded)
        return found + sliding(len(times), self.width, self.excluded)

    def figure(self, table: Table) -> Picture:
        page, axes = figure(12.0, 7.5, 2, 2, "the truth in place of the prediction inside a window of steps")
        page.subplots_adjust(wspace=0.15, hspace=0.35)
        asked = (("fixed", "psnr"), ("sliding", "gain_per_step"), ("fixed", "drift"), ("sliding", "drift"))
        for panel, (kind, value) in zip(axes, asked, strict=True):
            draw(panel, table, kind, value)
        axes[0].legend(fontsize="small")
        return drawn(page)

    def line(self, table: Table) -> str:
        held = [f"[{low:g}, {high:g}]" for low, high in self.windows or PAPER]
        missing = [name for name in held if name not in names(table, "window")]
        said = [sentence([one for one in table if one["of"] == name]) for name in names(table, "of")]
        return "; ".join(said + ([f"no step lies in {', '.join(missing)}: give more steps="] if missing else []))


class Outcome(NamedTuple):
    """Of every image; `fidelity`: how far the sample, shrunk, is from the small image that was told, in grey levels."""

    psnr: PerImage
    drift: PerImage
    fidelity: PerImage | None
    first: Pixels


@torch.no_grad()
def outcome(case: Case, one: Subject, numbers: Numbers, steps: range) -> Outcome:
    found, spec = [], one.denoiser.spec
    for some in numbers.split(case.batch):
        x0, condition = case.held_out.take(some)
        noise = SampleNoise(case.seed, some.tolist(), (spec.channels, spec.size, spec.size), case.device)
        learned = case.sampler.denoise(one.denoiser, condition)
        found.append(replaced(learned, one.denoiser.schedule, case.sampler, x0, noise, steps))
    x, (x0, condition) = torch.cat(found), case.held_out.take(numbers)
    small = condition.image
    fidelity = None if small is None else rmse(shrunk(x, small.shape[-1]), small).cpu()
    return Outcome(psnr(x, x0).cpu(), colour_drift(x, x0).cpu(), fidelity, to_pixels(x[:SHOWN]).cpu())


def replaced(
    learned: Denoise, schedule: NoiseSchedule, sampler: Sampler, x0: Image, noise: Callable[[int], Image], steps: range
) -> Image:
    """The image that sampling makes from x0 under noise, with x0 for what was learned in `steps`."""

    def truth(x_t: Image, level: NoiseLevel) -> Denoised:
        return level.unmix(x_t, x0)

    times = sampler.times(schedule, x0.device)
    denoise = swapped(learned, truth, *bounds(times, steps)) if steps else learned
    *_, x = sampler.walk(denoise, schedule, noise, x0)
    return x


def row(one: Subject, window: Window, times: Time, found: Outcome, plain: Outcome) -> Row:
    steps, middle = len(window.steps), times[window.steps.start : window.steps.stop]
    gain, gain_se = estimated(found.psnr - plain.psnr)
    fidelity, fidelity_se = (None, None) if found.fidelity is None else estimated(found.fidelity)
    values = {"psnr": estimated(found.psnr), "drift": estimated(found.drift)}
    return {
        "of": one.name,
        "kind": window.kind,
        "window": window.name,
        "excluded": window.excluded,
        "steps": steps,
        "first_t": round(1000 * middle[0].item(), 3) if steps else None,
        "last_t": round(1000 * middle[-1].item(), 3) if steps else None,
        "logsnr": one.denoiser.schedule.logsnr(middle).mean().item() if steps else None,
        "images": len(found.psnr),
        **{f"{name}{end}": x for name, pair in values.items() for end, x in zip(("", "_se"), pair, strict=True)},
        "gain": gain,
        "gain_se": gain_se,
        "gain_per_step": gain / steps if steps else None,
        "gain_per_step_se": gain_se / steps if steps else None,
        "fidelity": fidelity,
        "fidelity_se": fidelity_se,
    }


def sentence(table: Table) -> str:
    """Of one run."""
    (plain,) = (one for one in table if one["kind"] == "none")
    excluded, found = plain["excluded"], []
    for one in table:
        if one["kind"] == "fixed" and one["excluded"] == excluded:
            found.append(f"{one['psnr']:.1f} in {one['window']}")
    ends = [one["psnr"] for one in table if one["kind"] == "fixed" and one["excluded"] == 0 and one["psnr"] >= CAP]
    best = max(
        (one for one in table if one["kind"] == "sliding" and one["excluded"] == excluded),
        key=lambda one: one["gain_per_step"],
    )
    forced = f" ({len(ends)} windows with the last step give the truth, by construction)" if ends else ""
    return (
        f"{plain['of']}: PSNR {plain['psnr']:.1f} dB with nothing replaced, {', '.join(found)} with the last "
        f"{excluded} of the steps left alone{forced}; a step gains most from t={best['first_t']:.0f} to "
        f"{best['last_t']:.0f}, {best['gain_per_step']:.2f} dB"
    )
