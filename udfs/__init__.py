"""What runs inside an executor: pure Python and Arrow, no Spark session, no torch at import, no global state."""
