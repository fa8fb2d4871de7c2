"""The errors a user can meet. Each says what happened, which value, what is allowed and what to do."""

import sys


class InstructionPretrainingError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(InstructionPretrainingError, ValueError):
    """The configuration is wrong: the user's to mend. Commands exit with code 2 before Spark starts."""


class DataError(InstructionPretrainingError, ValueError):
    """Stored data (a shard, a manifest, a checkpoint, a table) is damaged or does not fit its declaration."""


class EnvironmentProblem(InstructionPretrainingError, RuntimeError):
    """Something outside the project is missing or unusable: Java, the Delta JARs, an engine, a model folder."""


def exit_code(program: str, error: InstructionPretrainingError) -> int:
    """Tell the user, on standard error, and give what the command exits with: 2 for a wrong configuration, else 1."""
    print(f"{program}: {error}", file=sys.stderr)
    return 2 if isinstance(error, ConfigError) else 1
