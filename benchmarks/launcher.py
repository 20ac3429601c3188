"""What a sweep costs beside its jobs: `hydra/launcher=local` against the same commands typed one after another.

    python benchmarks/launcher.py [jobs=4] [overrides of smallbatch train]

Three ways to run the same jobs, one at a time each, so that only starting, watching and ending differ: typed one after
another; as a sweep with a process a job; as a sweep in one process (hydra/launcher=basic), which starts Python once.
"""

import os
import subprocess
import sys
import tempfile
import time

SMALL = ["experiment=digits", "trainer=cpu", "batch=32", "budget.images=320", "data.size=8", "network.width=8"]
SMALL += ["network.multipliers=[1,2]", "network.attention_at=[4]", "network.head_width=8", "validation.count=32"]
SMALL += ["samples.rows=1", "curve.points=null"]


def seconds(*commands: list[str]) -> float:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        for command in commands:
            words = [sys.executable, "-m", "smallbatch.cli.main", "train", *command, f"root={root}"]
            subprocess.run(words, check=True, capture_output=True)
    return time.monotonic() - start


def main(words: list[str]) -> None:
    jobs = int(next((word[5:] for word in words if word.startswith("jobs=")), 4))
    words = SMALL + [word for word in words if not word.startswith("jobs=")]
    seeds = f"seed={','.join(map(str, range(jobs)))}"
    one_at_a_time = ["hydra/launcher=local", f"hydra.launcher.cores_per_job={len(os.sched_getaffinity(0))}"]
    ways = {
        "typed one after another": [[*words, f"seed={seed}"] for seed in range(jobs)],
        "hydra/launcher=local": [["-m", *words, seeds, *one_at_a_time]],
        "hydra/launcher=basic": [["-m", *words, seeds, "hydra/launcher=basic"]],
    }
    taken = {way: seconds(*commands) for way, commands in ways.items()}
    typed = taken["typed one after another"]
    for way, total in taken.items():
        print(f"{way:25} {total / jobs:6.2f} s a job  {(total - typed) / jobs:+6.2f} s  ratio {total / typed:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
