"""Where the engines of a running cluster are, and pi from all of them: a plain ipyparallel.Client."""

import ipyparallel as ipp


def where() -> str:
    import os

    return f"{os.environ.get('GRIFFIN_SERVER', 'this machine')}, process {os.getpid()}"


def hits(samples: int) -> int:
    import random

    return sum(random.random() ** 2 + random.random() ** 2 < 1 for _ in range(samples))


with ipp.Client(profile="griffin") as rc:
    print(f"{len(rc)} engines: {rc.ids}")
    for engine, place in zip(rc.ids, rc[:].apply_sync(where), strict=True):
        print(f"  engine {engine} is on {place}")
    samples = 200_000
    inside = rc[:].apply_sync(hits, samples)
    print(
        f"pi is about {4 * sum(inside) / (samples * len(rc)):.4f}, from {samples * len(rc):,} samples on {len(rc)} engines"
    )
