"""What the verbs share: the Spark session, the tables, the stage runner, tracking and progress."""
