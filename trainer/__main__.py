"""``python -m trainer --config <name or path>``: train, alone or as one rank under torchrun.

Exit codes: 0 done; 1 failed; 2 the configuration is wrong; 143 stopped by SIGTERM with its state saved.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

import yaml

from trainer.config import TrainingConfig, batch_shape, resolve
from trainer.planning.flops import DEVICES
from trainer.planning.forecast import NO_SHARDS, Forecast, forecast, placed
from udfs.errors import ConfigError, InstructionPretrainingError, exit_code

_TERMINATED = 143  # 128 + SIGTERM
_PATIENCE = 15.0  # seconds in which rank 0 will have told what is wrong with the configuration


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parser().parse_args(argv)
    # Of libraries only warnings are told; MLflow has a level of its own, read when it is imported.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("trainer").setLevel(logging.INFO)
    # OpenMP threads that spin while they wait slow everything down, themselves included, as soon as anything else runs.
    # Read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main_rank = os.environ.get("RANK", "0") == "0"
    try:
        given = [f"--{name}" for name in ("gpus", "device", "mfu") if getattr(arguments, name) is not None]
        if given and not arguments.plan:
            raise ConfigError(f"{given[0]} belongs to --plan, which is missing. A launcher starts the processes.")
        overrides = list(arguments.set)
        if arguments.deepspeed_config:
            overrides.append(f"deepspeed={arguments.deepspeed_config}")
        if arguments.plan:
            overrides = placed(arguments.config, overrides)
        config = resolve(arguments.config, overrides)
        batch_shape(config, int(os.environ.get("WORLD_SIZE", "1")))
        if arguments.check:
            return 0
        if arguments.dry_run:
            print(_dry_run(config))
            return 0
        if arguments.show_tokens:
            _show_tokens(config)
            return 0
        if arguments.plan:
            result = _forecast(config, arguments)
            print(result.text())
            result.check()
            return 0
        if arguments.end_with_stdin:
            _end_with_stdin()
        return _train(config)
    except InstructionPretrainingError as error:
        if isinstance(error, ConfigError) and not main_rank:
            # Every rank finds the same mistake, and rank 0 says so; a launcher ends all others as soon as one is gone.
            time.sleep(_PATIENCE)
        # A damaged file is found by the rank that reads it, and a mistake may be one of this rank's machine alone.
        return exit_code("trainer" if main_rank else f"trainer, rank {os.environ['RANK']}", error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train a language model on shards.")
    parser.add_argument("--config", required=True, help="a path, or a short name of conf/training")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting")
    parser.add_argument("--check", action="store_true", help="check the configuration alone, and stop")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and the plan")
    parser.add_argument("--show-tokens", action="store_true", help="print the first batch with every token's weight")
    parser.add_argument("--plan", action="store_true", help="print memory and time on the GPUs named by:")
    parser.add_argument("--gpus", type=int, help="with --plan: how many (default 1)")
    parser.add_argument("--device", choices=DEVICES, help="with --plan: of which kind (default h200)")
    parser.add_argument("--mfu", type=float, help="with --plan: share of their peak (default 0.4)")
    parser.add_argument("--end-with-stdin", action="store_true", help="save and stop when standard input ends")
    # What DeepSpeed's and Spark's launchers append.
    parser.add_argument("--deepspeed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--deepspeed_config", help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    return parser


def _dry_run(config: TrainingConfig) -> str:
    from trainer.data.sources import check_places, mixture, open_sets
    from trainer.planning.plan import plan

    sets = open_sets(config)
    check_places(config, sets)
    tree = {
        "config": config.model_dump(mode="json"),
        "plan": plan(config, sets, mixture(config, sets)).tree(),
    }
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _show_tokens(config: TrainingConfig) -> None:
    from rich.console import Console

    from trainer.show import show_tokens

    show_tokens(config, Console())


def _forecast(config: TrainingConfig, arguments: argparse.Namespace) -> Forecast:
    from trainer.data.sources import mixture, open_sets
    from trainer.planning.plan import plan

    gpus = 1 if arguments.gpus is None else arguments.gpus
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus} must be at least 1.")
    planned, vocabulary = None, None
    if NO_SHARDS not in config.data.sources:
        sets = open_sets(config)
        planned = plan(config, sets, mixture(config, sets))
        manifest = next(iter(sets.values())).manifest
        vocabulary = manifest.vocab_size
        data = config.data.model_copy(update={"sequence_length": manifest.sequence_length})
        config = config.model_copy(update={"data": data})
    mfu = 0.4 if arguments.mfu is None else arguments.mfu
    return forecast(config, planned, vocabulary, gpus, DEVICES[arguments.device or "h200"], mfu)


def _end_with_stdin() -> None:
    """Stop, with the state saved, as soon as standard input ends: the process at its other end is gone."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _train(config: TrainingConfig) -> int:
    from trainer.loop import Stopped, train

    try:
        train(config)
    except Stopped as stopped:
        print(f"trainer: {stopped}", file=sys.stderr)
        return _TERMINATED
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
