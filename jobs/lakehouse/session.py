"""The Spark session: one place for Java, the Delta JARs and the settings of a target machine.

A target (``conf/targets/<name>.yaml``) holds every Spark setting that depends on where the job runs; code holds none.
Under ``spark-submit`` and on Databricks the JVM is already there: then master, memory and packages are the launcher's
business, and only settings that a session may still change are applied.
"""

import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from jobs.lakehouse.quiet import quiet_start
from udfs.config import Config, build, read
from udfs.errors import EnvironmentProblem, exit_code

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DELTA_PACKAGE = "io.delta:delta-spark_4.2_2.13:4.4.0"
DELTA_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
JAVA_VERSION = 17


class TargetConfig(Config):
    """Where jobs run. ``settings`` are Spark settings, ``environment`` is set before the JVM starts."""

    # None leaves the choice to spark-submit or to Databricks.
    master: str | None = None
    settings: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    # A folder of JARs for machines that cannot resolve packages; Delta and all it needs must be inside.
    jars: str | None = None


def load_target(name: str) -> TargetConfig:
    """The target of that name or path.

    Raises:
        ConfigError: no such file, or wrong keys in it.
    """
    return build(TargetConfig, read(name, "targets"), f"target {name}")


def start(target: TargetConfig, app_name: str) -> "SparkSession":
    """A session with Delta, or the one that is already running.

    Raises:
        EnvironmentProblem: Java is missing or too old, or the Delta JARs cannot be had.
    """
    for key, value in target.environment.items():
        os.environ.setdefault(key, value)
    # Workers must find the same packages as the driver.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app_name)
    for key, value in target.settings.items():
        builder = builder.config(key, value)
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return builder.getOrCreate()
    for key, value in DELTA_SETTINGS.items():
        builder = builder.config(key, value)
    ours = "PYSPARK_GATEWAY_PORT" not in os.environ  # not under spark-submit: the JVM is ours to start
    if ours:
        check_java()
        if target.master:
            builder = builder.master(target.master)
        if target.jars:
            jars = sorted(str(path) for path in Path(target.jars).glob("*.jar"))
            if not jars:
                raise EnvironmentProblem(f"the target's `jars` folder {target.jars} holds no .jar file.")
            builder = builder.config("spark.jars", ",".join(jars))
        else:
            from delta import configure_spark_with_delta_pip

            builder = configure_spark_with_delta_pip(builder)
    try:
        with quiet_start() if ours else nullcontext():
            return builder.getOrCreate()
    except Exception as error:
        raise _explained(error) from error


def fetch() -> int:
    """Start a session once, so that later ones find the JARs on this machine; gives an exit code."""
    try:
        start(load_target("local"), "fetch").stop()
    except EnvironmentProblem as error:
        return exit_code("ipt", error)
    return 0


def check_java() -> None:
    """Raises EnvironmentProblem unless a Java of version 17 or newer can be started."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if not java or not Path(java).exists():
        raise EnvironmentProblem(
            f"Spark needs Java {JAVA_VERSION}, but {java or 'java'} is not there. "
            f"Install a JDK {JAVA_VERSION} (Debian: openjdk-17-jre-headless) or point JAVA_HOME at one."
        )
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    found = int((match.group(2) if match.group(1) == "1" else match.group(1)) or 0) if match else 0
    if found < JAVA_VERSION:
        raise EnvironmentProblem(
            f"Spark needs Java {JAVA_VERSION} or newer, but {java} is version {found or text.strip()!r}. "
            f"Install a JDK {JAVA_VERSION} or point JAVA_HOME at one."
        )


def _explained(error: Exception) -> Exception:
    text = str(error)
    if any(sign in text for sign in ("ClassNotFoundException", "unresolved dependency", "gateway process exited")):
        return EnvironmentProblem(
            f"the Spark session did not start; the JARs of {DELTA_PACKAGE} could not be had. "
            "They come from a Maven repository on the first start. Behind a mirror set `spark.jars.repositories` or "
            "`spark.jars.ivySettings` in the target's settings; without any repository put the JARs into a folder "
            "and name it as the target's `jars`; under spark-submit pass --packages. "
            f"Spark said: {text.splitlines()[0] if text else type(error).__name__}"
        )
    return error


if __name__ == "__main__":
    raise SystemExit(fetch())
