"""`make bench`: run every benchmark, or those named: `python -m benchmarks startup`.

A benchmark prints its table with the machine, the versions and n. None is a test: a timing asserts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import digits_verdicts, lenet_mnist, sparse_mlp, startup
from nirvana.lab.environment import environment

BENCHMARKS: dict[str, Callable[[], None]] = {
    "startup": startup.main,
    "digits_verdicts": digits_verdicts.main,
    "lenet_mnist": lenet_mnist.main,
    "sparse_mlp": sparse_mlp.main,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}: there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    print("# Benchmarks\n\nMachine and versions:\n")
    print(", ".join(f"{name} {value}" for name, value in environment().items()))
    for name in names or BENCHMARKS:
        print(f"\n## {name}\n")
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
