"""One module per stage: each is a verb of the ``ipt`` command and an entry point for ``spark-submit``."""
