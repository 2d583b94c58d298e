"""A worker whose speed is an argument and whose clock is made up: stub.py IMAGES_A_SECOND [PROBE_SECONDS...]"""

import sys
from itertools import chain, repeat

from resnetkit.benchmark.worker import serve

speed, *probes = map(float, sys.argv[1:])
turns = chain(probes, repeat(1.0))


def fail(**_):
    raise ValueError("no such thing")


serve(
    {
        "prepare": lambda job: {"runs": f"stub of {job['model']}", "precision": "float32"},
        "sample": lambda seconds: {"images": 10 * speed, "seconds": 10.0},
        "export": fail,
        "ceilings": lambda device, threads: {"float32_gflops": 100.0},
        "probe": lambda: [1.0, next(turns)],
    }
)
