"""``ipt``: one sub-command per verb, and ``run`` for a whole pipeline file.

Exit codes: 0 done; 1 the job failed, or what it wrote is damaged; 2 the configuration or the command line is wrong,
nothing was started; 130 interrupted. ``spark-submit jobs/<verb>.py --config ...`` takes the same options.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from udfs.errors import ConfigError, DataError, InstructionPretrainingError, exit_code

if TYPE_CHECKING:
    from jobs.pipeline import Step
    from jobs.runner import Runner

# As the last line of a traceback, up to what Spark appends.
_OURS = re.compile(r"^udfs\.errors\.\w+: (.+?)(?=\s+SQLSTATE|\n\s*\n|\n\s+at |\s*\Z)", re.MULTILINE | re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from jobs.pipeline import VERBS

    arguments = _parser(VERBS).parse_args(argv)
    # Of libraries only warnings are told; MLflow has a level of its own, read when it is imported.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    for ours in ("ipt", "jobs", "udfs"):
        logging.getLogger(ours).setLevel(logging.INFO)
    try:
        return _run(arguments)
    except InstructionPretrainingError as error:
        return exit_code("ipt", error)
    except Exception as error:
        message = told_in_a_worker(error)
        if message is None:
            raise
        print(f"ipt: {message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ipt: interrupted; start the same command again to go on", file=sys.stderr)
        return 130


def told_in_a_worker(error: Exception) -> str | None:
    """The message of an error of ours that Spark brought here from a worker, inside hundreds of lines of its own; None
    for any other error."""
    from pyspark.errors import PySparkException

    found = _OURS.findall(str(error)) if isinstance(error, PySparkException) else []
    return found[-1] if found else None


def console() -> None:
    """The command as a program. Raises SystemExit on failure, since a wheel task ignores what a function returns."""
    code = main()
    if code:
        raise SystemExit(code)


def _parser(verbs: dict[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ipt", description="Instruction Pre-Training on the lakehouse: raw text to training data to models."
    )
    commands = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    for name, text in {"run": "run the steps of a pipeline file in order", **verbs}.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("--config", required=True, help="pipeline: a path, or a short name of conf/pipelines")
        command.add_argument("--set", action="append", default=[], metavar="STEP.KEY=VALUE", help="change one setting")
        command.add_argument(
            "--dry-run", action="store_true", help="print the resolved configuration, the tables and what would be read"
        )
        if name == "run":
            command.add_argument("--steps", help="comma-separated names: only these steps, in the file's order")
            continue
        command.add_argument("--step", help="name of the step, where the pipeline has several of this verb")
        kinds = command.add_mutually_exclusive_group()  # of what is done instead of one whole run
        kinds.add_argument(
            "--continuous", type=int, metavar="SECONDS", help="go on, with a micro-batch every so many seconds"
        )
        if name == "train":
            kinds.add_argument(
                "--show-tokens", action="store_true", help="print the first batch with every token's weight and stop"
            )
        if name == "synthesize":
            kinds.add_argument("--preview", type=int, metavar="N", help="show N finished examples, write nothing")
            kinds.add_argument(
                "--estimate", type=int, metavar="N", help="tell tokens, hours and price from a sample of N documents"
            )
            command.add_argument(
                "--tokens-per-second", type=float, metavar="X", help="speed of an engine for --estimate, not measured"
            )
            command.add_argument("--price-per-hour", type=float, metavar="Y", help="of an engine, for --estimate")
        if name == "shard":
            kinds.add_argument("--verify", action="store_true", help="check the sets against their manifests and stop")
            place = "FILE:ROW[:TOKEN]"
            kinds.add_argument("--trace", metavar=place, help="show where a token of a shard came from, and its text")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from jobs.pipeline import load_pipeline, load_verb
    from jobs.runner import Runner, describe

    pipeline = load_pipeline(arguments.config, arguments.set)
    if arguments.verb == "run":
        wanted = [name for name in (arguments.steps or "").split(",") if name]
        if arguments.steps is not None and not wanted:
            raise ConfigError("--steps names no step. Leave it out to run all of them.")
        unknown = set(wanted) - {step.name for step in pipeline.steps}
        if unknown:
            known = ", ".join(step.name for step in pipeline.steps)
            raise ConfigError(f"--steps names {', '.join(sorted(unknown))}, which the pipeline lacks. Steps: {known}.")
        steps = tuple(step for step in pipeline.steps if not wanted or step.name in wanted)
    else:
        steps = pipeline.of_verb(arguments.verb, arguments.step)
    if arguments.dry_run:
        print(describe(pipeline, steps))
        return 0
    continuous = getattr(arguments, "continuous", None)
    for option in ("continuous", "preview"):
        number = getattr(arguments, option, None)
        if number is not None and number < 1:
            raise ConfigError(f"--{option} {number} must be at least 1.")
    if continuous is not None and load_verb(arguments.verb).stage is None:
        raise ConfigError(f"--continuous is for verbs that stream; {arguments.verb} reads what is there and ends.")
    if continuous is not None and len(steps) != 1:
        raise ConfigError(f"--continuous needs one step; {arguments.verb} has {len(steps)} here. Use --step.")
    given = [name for name in ("tokens_per_second", "price_per_hour") if getattr(arguments, name, None) is not None]
    if given and arguments.estimate is None:
        raise ConfigError(f"--{given[0].replace('_', '-')} belongs to --estimate N, which is missing.")
    address = getattr(arguments, "trace", None)
    if address is not None and len(steps) != 1:
        raise ConfigError(f"--trace needs one set; the pipeline has {len(steps)} steps of this verb. Use --step.")
    runner = Runner(pipeline)
    if getattr(arguments, "verify", False):
        return _verify(runner, steps)
    if len(steps) > 1:
        runner.foresee(steps)
    try:
        for step in steps:
            if getattr(arguments, "preview", None):
                runner.preview(step, arguments.preview)
            elif getattr(arguments, "estimate", None) is not None:
                runner.estimate(step, arguments.estimate, arguments.tokens_per_second, arguments.price_per_hour)
            elif address is not None:
                runner.trace(step, address)
            elif getattr(arguments, "show_tokens", False):
                runner.show(step)
            else:
                runner.run(step, continuous)
    finally:
        runner.close()
    return 0


def _verify(runner: "Runner", steps: "Sequence[Step]") -> int:
    problems = []
    for step in steps:
        try:
            found = runner.verify(step)
        except DataError as error:
            found = [str(error)]
        print(f"{step.name}: {f'{len(found)} found wrong' if found else 'as the manifest says'}")
        problems += found
    for problem in problems:
        print(f"ipt: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
