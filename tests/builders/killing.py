"""Kills an evaluation at random moments, again and again, and then lets it end.

    python tests/builders/killing.py KILLS SEED PARTS ARGUMENT...

``ARGUMENT...`` are those of ``reconstruct``, PARTS how many parts the whole run writes. Each run is forked from this
process, which has imported everything and computed nothing, so that a run is at work soon. A kill comes when a random
number of parts is there and a random moment has passed; a run that ends before it is an error, since then nothing was
killed. Prints, for each kill, how many images had rows.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    import reconstruct.evaluation.batch
    import reconstruct.evaluation.provenance
    import reconstruct.evaluation.ray_engine
    import reconstruct.evaluation.run
    import reconstruct.inversion.invert
    import reconstruct.report.pages.write
    import reconstruct.zoo.load  # noqa: F401
    from reconstruct.commands.main import main as run
    from reconstruct.evaluation.results import finished

    kills, seed, parts = map(int, sys.argv[1:4])
    sys.argv = ["reconstruct", *sys.argv[4:]]
    output = Path(sys.argv[sys.argv.index("--output") + 1])
    draw = random.Random(seed)
    for reached in sorted(draw.sample(range(parts), kills)):
        child = os.fork()
        if not child:
            run()
            os._exit(0)
        while len(list(output.glob("rows/part-*"))) < reached and not os.waitpid(child, os.WNOHANG)[0]:
            time.sleep(0.002)
        # At the beginning that is anywhere from the first import to the first batch.
        time.sleep(draw.uniform(0, 0.05 if reached else 1))
        if not Path(f"/proc/{child}").exists() or os.waitpid(child, os.WNOHANG)[0]:
            sys.exit("the run ended before it was killed: give it more images")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(len(finished(output)), flush=True)
    run()


if __name__ == "__main__":
    main()
