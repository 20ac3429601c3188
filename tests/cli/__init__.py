"""Tests of the command line share these words: a run of seconds."""

TINY = [
    *("experiment=digits", "trainer=cpu", "batch=32", "budget.images=320", "data.size=8", "network.width=8"),
    *("network.multipliers=[1,2]", "network.attention_at=[4]", "network.head_width=8", "validation.count=32"),
    *("log.every_images=160", "validation.every_images=160", "samples.every_images=160", "samples.rows=1"),
    *("checkpoint.every_images=160", "curve.points=64", "sampler.steps=4"),
]
UNDRAWN = [*TINY, "~callbacks.pictures"]  # where nobody looks at how it went: figures are two fifths of such a run
