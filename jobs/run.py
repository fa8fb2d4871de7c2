"""The steps of a pipeline file in order, in one Spark session: ``ipt run`` as an entry point for ``spark-submit``."""

import sys

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["run", *sys.argv[1:]]))
