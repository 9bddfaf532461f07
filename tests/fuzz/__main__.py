"""``python -m tests.fuzz``: ten thousand hostile inputs; exit status 1 where one got past."""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.children import Finding, kind_of, make, run, warm
from tests.fuzz.kinds import KINDS, ORDER


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inputs (10,000)")
    parser.add_argument("--seed", type=int, default=0, help="what all of them follow from")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--kind", help=f"only of these kinds: {', '.join(KINDS)}")
    parser.add_argument("--only", type=int, help="read this input alone, in this process")
    parser.add_argument("--keep", type=Path, help="write the inputs that got past into this folder")
    chosen = parser.parse_args()
    kinds = ORDER
    if chosen.only is not None:
        with tempfile.TemporaryDirectory() as scratch:
            folder = chosen.keep or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            make(chosen.only, kind_of(chosen.only, kinds), chosen.seed, folder)
            KINDS[kind_of(chosen.only, kinds)][1](folder)
        return 0
    numbers = [n for n in range(chosen.count) if chosen.kind is None or kind_of(n, kinds) in chosen.kind.split(",")]
    warm()
    began, findings, read = time.monotonic(), [], 0
    with tempfile.TemporaryDirectory() as scratch:
        for finding in run(numbers, kinds, chosen.seed, chosen.processes, Path(scratch)):
            read += 1
            if finding is not None:
                findings.append(finding)
                print(told(finding), flush=True)
                if chosen.keep is not None:
                    folder = chosen.keep / f"{finding.number}_{finding.kind}_{finding.what}"
                    folder.mkdir(parents=True, exist_ok=True)
                    make(finding.number, finding.kind, chosen.seed, folder)
    each = ", ".join(f"{count} {kind}" for kind, count in Counter(kind_of(n, kinds) for n in numbers).items())
    print(f"{read} inputs ({each}) in {time.monotonic() - began:.0f} s, seed {chosen.seed}: {len(findings)} findings")
    return 1 if findings else 0


def told(finding: Finding) -> str:
    return f"{finding.number} {finding.kind}: {finding.what} at {finding.where or '?'}: {finding.detail}"


if __name__ == "__main__":
    sys.exit(main())
