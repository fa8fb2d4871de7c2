"""Tables at a path and in a catalog, and those that several jobs make at the same moment."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from delta.tables import DeltaTable

from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.tables import PROVENANCE, TABLES
from udfs.config import Config
from udfs.rejects import reject


def test_jobs_that_start_together_make_one_table_with_its_constraints(lakehouse, spark):
    others = [Lakehouse(lakehouse.config, lambda: spark) for _ in range(4)]
    with ThreadPoolExecutor(len(others)) as pool:
        assert list(pool.map(lambda one: one.read("rejects").count(), others)) == [0] * len(others)
    assert lakehouse.version("rejects") == 0
    properties = DeltaTable.forPath(spark, lakehouse.location("rejects")).detail().first()["properties"]
    expected = {f"delta.constraints.{name.lower()}": condition for name, condition in TABLES["rejects"].checks.items()}
    assert expected and {key: properties.get(key) for key in expected} == expected


@pytest.mark.parametrize("namespace", [None, "ipt_tables", "spark_catalog.ipt_tables"])
def test_a_table_is_as_declared_wherever_it_lies(namespace, tmp_path, spark):
    lakehouse = Lakehouse(LakehouseConfig(root=str(tmp_path / "it's a lake"), namespace=namespace), lambda: spark)
    spark.sql("CREATE SCHEMA ipt_tables")
    try:
        for name in ("syntheses", "rejects"):
            assert lakehouse.version(name) == -1
            schema, declared = lakehouse.read(name).schema, (*TABLES[name].columns, *PROVENANCE)
            assert [(field.name, field.dataType) for field in schema] == [(one.name, one.type) for one in declared]
            assert [field.metadata["comment"] for field in schema] == [one.comment for one in declared]
            detail = lakehouse._delta(name).detail().first()
            assert detail["description"] == TABLES[name].comment and detail["id"] == lakehouse.identity(name)
        job = Job(lakehouse, "test", Config(), lambda: spark)
        rows = [reject("test", record, "too_short") for record in ("1", "2")]
        frame = spark.createDataFrame(rows, TABLES["rejects"].schema)
        for _ in range(2):
            lakehouse.append(job.with_provenance(frame), "rejects", "app", 0)
        changed = job.with_provenance(frame.limit(1)).withColumn("reason", frame["stage"])
        with pytest.raises(Exception, match="reason_known"):
            lakehouse.append(changed, "rejects", "app", 1)
        nameless = spark.createDataFrame([{**rows[0], "record_id": None}], frame.schema)
        with pytest.raises(Exception, match="NOT NULL constraint violated for column: record_id"):
            lakehouse.append(job.with_provenance(nameless), "rejects", "app", 1)
        lakehouse.update(job.with_provenance(frame.limit(1)), "rejects", ("record_id",))
        assert lakehouse.version("rejects") == 2 and lakehouse.read("rejects", 1).count() == 2
    finally:
        spark.sql("DROP SCHEMA ipt_tables CASCADE")
