# Databricks notebook source
# MAGIC %md
# MAGIC # Pairs, and the texts they become
# MAGIC
# MAGIC Twenty rendered texts of the demo, drawn by hash, beside the pairs they were made from; then one chain rendered
# MAGIC anew, with other seeds and through every mode. The same cells run on Databricks and on a laptop
# MAGIC (`python notebooks/renderings.py`, where the demo ran).

# COMMAND ----------

import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.pipeline import load_pipeline
from jobs.reporting.renderings import draw_renderings
from jobs.runner import Runner

# On Databricks the bundle's pipeline, by the environment variables that databricks.yml sets.
pipeline = load_pipeline("databricks" if "DATABRICKS_RUNTIME_VERSION" in os.environ else "demo")
lakehouse = Runner(pipeline, globals().get("spark")).lakehouse
texts, syntheses = lakehouse.read("augmented_texts"), lakehouse.read("syntheses")
console = Console(width=150)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Twenty of them
# MAGIC Another `seed` draws other texts. No question, option, explanation or answer is ever lost; options are shuffled,
# MAGIC and one style goes through all documents of a chain, so that a text reads as a row of like examples.

# COMMAND ----------

for rendering in draw_renderings(texts, syntheses, number=20, seed=0):
    table = Table("text", "pairs", title=Text(rendering.name), show_lines=True, width=150)
    pairs = "\n\n".join(f"{pair['instruction']}\n>> {pair['response']}" for pair in rendering.pairs)
    table.add_row(Text(rendering.text), Text(pairs))
    console.print(table)

# COMMAND ----------

# MAGIC %md
# MAGIC ## How often each mode and template is drawn

# COMMAND ----------

from pyspark.sql import functions as F

texts.groupBy("mode", "inverted").count().orderBy(F.desc("count")).show()
texts.select(F.explode("template_ids").alias("template")).groupBy("template").count().orderBy(F.desc("count")).show(
    20, truncate=False
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## One chain, rendered anew
# MAGIC Rendering is a pure function of the chain, the seed and the bank: the same three give the same text on any
# MAGIC machine, and another seed gives another one of the same pairs.

# COMMAND ----------

from udfs.templates.bank import load_bank
from udfs.templates.render import ModeWeights, RenderSettings, render_chain

bank = load_bank("en")
chain_id = texts.where("n_pairs > 3").orderBy("chain_id").first()["chain_id"]
rows = syntheses.where(F.col("chain_id") == chain_id).collect()
chain = [row.asDict(recursive=True) for row in rows]
for seed in (0, 1, 2):
    rendered = render_chain(chain, RenderSettings(seed=seed), bank)[0]
    console.rule(f"seed {seed}: {rendered.mode}")
    console.print(Text(rendered.text))

# COMMAND ----------

# MAGIC %md
# MAGIC Weights are settings of `augment` (`--set augment.weights.dialogue=20`); here each mode is given all of the
# MAGIC weight.

# COMMAND ----------

for mode in ModeWeights.model_fields:
    weights = dict.fromkeys(ModeWeights.model_fields, 0) | {mode: 1}
    rendered = render_chain(chain, RenderSettings(weights=ModeWeights(**weights)), bank)[0]
    console.rule(rendered.mode)
    console.print(Text(rendered.text))
