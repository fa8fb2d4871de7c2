"""Tables that several jobs make at the same moment."""

from concurrent.futures import ThreadPoolExecutor

from delta.tables import DeltaTable

from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.tables import TABLES


def test_jobs_that_start_together_make_one_table_with_its_constraints(lakehouse, spark):
    others = [Lakehouse(lakehouse.config, lambda: spark) for _ in range(4)]
    with ThreadPoolExecutor(len(others)) as pool:
        assert list(pool.map(lambda one: one.read("rejects").count(), others)) == [0] * len(others)
    assert lakehouse.version("rejects") == 0
    properties = DeltaTable.forPath(spark, lakehouse.location("rejects")).detail().first()["properties"]
    expected = {f"delta.constraints.{name.lower()}": condition for name, condition in TABLES["rejects"].checks.items()}
    assert expected and {key: properties.get(key) for key in expected} == expected
