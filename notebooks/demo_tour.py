# Databricks notebook source
# MAGIC %md
# MAGIC # A tour of the demo's tables
# MAGIC
# MAGIC What `make demo` left behind, table by table, and one document followed from its file to a token of a shard.
# MAGIC The notebook shows and defines nothing: every name comes from the installed package, and the same cells run on
# MAGIC Databricks and on a laptop (`python notebooks/demo_tour.py`, where the demo ran).

# COMMAND ----------

# MAGIC %md
# MAGIC ## The pipeline
# MAGIC The pipeline file says where the lakehouse is. On Databricks that is the bundle's `databricks`: give the cluster
# MAGIC the wheel and the variables `IPT_VOLUME`, `IPT_NAMESPACE` and `IPT_EXPERIMENT`, as the job's clusters have them.
# MAGIC The notebook's own Spark session is used there; elsewhere one is started.

# COMMAND ----------

import os

from pyspark.sql import functions as F

from jobs.pipeline import load_pipeline
from jobs.runner import Runner

pipeline = load_pipeline("databricks" if "DATABRICKS_RUNTIME_VERSION" in os.environ else "demo")
runner = Runner(pipeline, globals().get("spark"))
lakehouse = runner.lakehouse
print("lakehouse:", lakehouse.root)
print("steps:", ", ".join(f"{step.name} ({step.verb})" for step in pipeline.steps))

# COMMAND ----------

# MAGIC %md
# MAGIC ## What came in
# MAGIC `raw_documents` holds each distinct text once: `doc_id` is a hash of the text. `documents` holds clean chunks
# MAGIC that fit the synthesizer's context, and the arm each document belongs to.

# COMMAND ----------

lakehouse.read("raw_documents").groupBy("source", "domain").count().orderBy("source", "domain").show()
lakehouse.read("documents").groupBy("arm").agg(
    F.count("*").alias("documents"), F.sum("n_tokens").alias("tokens")
).show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What did not go on
# MAGIC Every record that is not in a table is here, with a reason of a closed list.

# COMMAND ----------

lakehouse.read("rejects").groupBy("stage", "reason").count().orderBy("stage", "reason").show(truncate=False)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What the synthesizer learned from, and what it wrote
# MAGIC `tuning_examples` are contexts with their questions and answers; `syntheses` has one row for each document that
# MAGIC was read, with the completion exactly as it was generated.

# COMMAND ----------

lakehouse.read("tuning_examples").groupBy("dataset").agg(
    F.count("*").alias("examples"), F.sum("n_pairs").alias("pairs")
).show(truncate=False)
syntheses = lakehouse.read("syntheses")
syntheses.groupBy("status", "round").agg(F.count("*").alias("documents"), F.sum(F.size("pairs")).alias("pairs")).show()
syntheses.select(F.explode("pairs.format").alias("format")).groupBy("format").count().show(truncate=False)

# COMMAND ----------

# MAGIC %md
# MAGIC ## One chain
# MAGIC The rounds of a chain share a prompt: when the second document is read, the first and its pairs stand before it.

# COMMAND ----------

chain_id = syntheses.filter("round = 1 AND size(pairs) > 0").orderBy("chain_id").first()["chain_id"]
chain = syntheses.filter(F.col("chain_id") == chain_id).orderBy("round").collect()
for row in chain:
    print(f"round {row['round']}, carried {row['carried']}, {row['n_prompt_tokens']} prompt tokens")
    print(row["context"])
    for pair in row["pairs"]:
        print(f"  Q  {pair['instruction']}\n  A  {pair['response']}")
    print()

# COMMAND ----------

# MAGIC %md
# MAGIC Because the completion is kept, pairs can be parsed again with no model and no GPU:

# COMMAND ----------

from udfs.synthesis.pairs import parse

parsed = parse(chain[0]["completion"])
print(len(parsed.pairs), "pairs,", len(parsed.rejected), "rejected pieces")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The finished text
# MAGIC The same chain, rendered through templates: this is what the Instruct model reads.

# COMMAND ----------

texts = lakehouse.read("augmented_texts")
texts.groupBy("mode").agg(F.count("*").alias("texts"), F.sum("n_pairs").alias("pairs")).orderBy("mode").show()
text = texts.filter(F.col("chain_id") == chain_id).first()
print(text["mode"], text["template_ids"])
print(text["text"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## Tokens
# MAGIC `token_shards` lists the shard files and the table version they were made from. A shard is a memory-mapped Arrow
# MAGIC file: a row is one training sequence, and every document in it knows where it came from.

# COMMAND ----------

shards = lakehouse.read("token_shards")
shards.select("shard_set", "source", "source_version", "rows", "tokens", "documents").orderBy("shard_set").show()

from udfs.shards.format import ShardReader

shard = shards.filter("source = 'augmented_texts'").orderBy(F.desc("written_at")).first()
reader = ShardReader(lakehouse.path("shards", shard["shard_set"], shard["path"]))
for doc_id, input_ids in reader.documents(0):
    print(doc_id, len(input_ids), "tokens, the first:", input_ids[:12].tolist())

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it was good for
# MAGIC Scores of the models and of the synthesizer, with 95% intervals.

# COMMAND ----------

lakehouse.read("evaluations").select("subject", "metric", "value", "low", "high", "n").orderBy(
    "subject", "metric"
).show(100, truncate=False)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Where a row comes from
# MAGIC Every row names the step, the configuration and the MLflow run that wrote it; that run's tags name the Delta
# MAGIC versions it read and wrote.

# COMMAND ----------

syntheses.select("step", "config_hash", "run_id", "written_at").distinct().show(truncate=False)
print(f"mlflow ui --backend-store-uri {lakehouse.tracking_uri}")
