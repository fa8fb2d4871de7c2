"""The errors a user can meet. Each says what happened, which value, what is allowed and what to do."""


class InstructionPretrainingError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(InstructionPretrainingError, ValueError):
    """The configuration is wrong: the user's to mend. Commands exit with code 2 before Spark starts."""


class DataError(InstructionPretrainingError, ValueError):
    """Stored data (a shard, a manifest, a checkpoint, a table) is damaged or does not fit its declaration."""


class EnvironmentProblem(InstructionPretrainingError, RuntimeError):
    """Something outside the project is missing or unusable: Java, the Delta JARs, an engine, a model folder."""
