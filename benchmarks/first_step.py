"""Seconds from pressing return to the end of the first step of `resnet train digits`: results/first-step.json.

python benchmarks/first_step.py     half a minute on 2 cores

A bound by the clock, beside no peer: a machine that is not quiet makes it larger.
"""

from statistics import median

from record import header, save

from resnetkit.benchmark.first_step import first_step_seconds
from resnetkit.cores import core_count, usable_cores

TIMES = 15


def main() -> None:
    before = header("first-step", "resnet train digits", [0])
    seconds = first_step_seconds(TIMES, usable_cores()[: core_count()], "cpu")
    figures = {"seconds": [round(value, 3) for value in seconds]}
    figures |= {"median": round(median(seconds), 3), "most": round(max(seconds), 3)}
    save(before | figures)
    print(f"{figures['median']} s, {figures['most']} s at most of {TIMES} starts: results/first-step.json")


if __name__ == "__main__":
    main()
