"""Every table of the lakehouse: columns, comments, constraints and key, in one place.

A stage writes only the columns listed here; the stage runner adds the ``PROVENANCE`` columns to every row. The
outcome of a stage is one frame with a nullable struct column per table it writes (``outcome_schema``); exactly one of
them is set in a row, so each micro-batch is computed once and then split.
"""

from dataclasses import dataclass, field

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from udfs.rejects import REASONS

STRING = StringType()
INT = IntegerType()
LONG = LongType()
DOUBLE = DoubleType()
BOOLEAN = BooleanType()
TIMESTAMP = TimestampType()


def _struct(**fields: DataType) -> StructType:
    return StructType([StructField(name, kind, True) for name, kind in fields.items()])


PAIR = _struct(instruction=STRING, response=STRING, format=STRING, grounding=DOUBLE, length_ratio=DOUBLE)
REJECTED_PAIR = _struct(text=STRING, reason=STRING)
QUESTION = _struct(Q=STRING, A=STRING)
MESSAGE = _struct(role=STRING, content=STRING)
ENGINE = _struct(
    name=STRING,
    model=STRING,
    revision=STRING,
    temperature=DOUBLE,
    max_tokens=INT,
    seed=LONG,
    versions=MapType(STRING, STRING),
)


@dataclass(frozen=True)
class Column:
    """One column: its type, what it holds, and whether it may be null."""

    name: str
    type: DataType
    comment: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One Delta table. ``key`` names the columns that identify a row; ``checks`` are SQL constraints by name."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    checks: dict[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> StructType:
        """Columns a stage fills, without provenance. Nullable throughout: the constraints live on the table."""
        return StructType([StructField(column.name, column.type, True) for column in self.columns])


PROVENANCE = (
    Column("step", STRING, "pipeline step that wrote the row"),
    Column("config_hash", STRING, "fingerprint of the step's resolved configuration"),
    Column("run_id", STRING, "MLflow run that wrote the row"),
    Column("written_at", TIMESTAMP, "when the row was written, UTC"),
)

RAW_DOCUMENTS = Table(
    "raw_documents",
    "Records as received, one row per distinct text.",
    (
        Column("doc_id", STRING, "hash of the text: the same text always has the same id"),
        Column("source", STRING, "name of the source, as configured"),
        Column("domain", STRING, "subject area of the source"),
        Column("uri", STRING, "file and record number the text was read from"),
        Column("text", STRING, "the text as received"),
        Column("metadata", MapType(STRING, STRING), "the record's other fields, as strings", nullable=True),
        Column("license", STRING, "licence of the source", nullable=True),
    ),
    key=("doc_id",),
)

DOCUMENTS = Table(
    "documents",
    "Clean texts, chunked to the synthesizer's context; the unit of synthesis.",
    (
        Column("doc_id", STRING, "raw document the chunk was cut from"),
        Column("chunk", INT, "position of the chunk in its document, from 0"),
        Column("source", STRING, "name of the source"),
        Column("domain", STRING, "subject area of the source"),
        Column("language", STRING, "BCP 47 language tag, null where not determined", nullable=True),
        Column("arm", STRING, "convert (goes to the synthesizer) or raw, by hash of the document id"),
        Column("n_tokens", INT, "tokens of the text in the synthesizer's tokenizer"),
        Column("content_hash", STRING, "hash of the normalised document, by which exact duplicates are found"),
        Column("license", STRING, "licence of the source", nullable=True),
        Column("text", STRING, "normalised text of the chunk"),
    ),
    key=("doc_id", "chunk"),
    checks={
        "arm_known": "arm IN ('convert', 'raw')",
        "text_not_empty": "length(text) > 0",
        "chunk_positive": "chunk >= 0",
    },
)

SYNTHESES = Table(
    "syntheses",
    "One row per document and sample: what the synthesizer wrote about it in its chain, and what was parsed from that.",
    (
        Column("chain_id", STRING, "names the chain: a hash of its documents, in order, and of its sample"),
        Column("round", INT, "position in the chain, from 0"),
        Column("chain_length", INT, "documents in the chain"),
        Column("doc_id", STRING, "raw document"),
        Column("chunk", INT, "chunk of the document"),
        Column("sample", INT, "number among the samples of the document, from 0; a chain is of one sample"),
        Column("source", STRING, "source that all documents of the chain share"),
        Column("domain", STRING, "subject area of the source"),
        Column("carried", ArrayType(STRING), "doc_id:chunk of the earlier documents in the prompt, oldest first"),
        Column("status", STRING, "ok, no_pairs (none passed) or truncated_context (text cut to fit, pairs parsed)"),
        Column("finish_reason", STRING, "why generation ended: stop or length", nullable=True),
        Column("n_prompt_tokens", INT, "tokens of the prompt"),
        Column("n_cached_tokens", INT, "prompt tokens found in the prefix cache"),
        Column("n_completion_tokens", INT, "tokens generated"),
        Column("pairs", ArrayType(PAIR), "pairs that passed; grounding: share of the response's words in the text"),
        Column("rejected_pairs", ArrayType(REJECTED_PAIR), "pieces of the completion that did not, with the reason"),
        Column("engine", ENGINE, "model, sampling and versions that produced the completion"),
        Column("context", STRING, "document text as it stands in the corpus"),
        Column("completion", STRING, "exactly what was generated"),
    ),
    key=("doc_id", "chunk", "sample"),
    checks={
        "status_known": "status IN ('ok', 'no_pairs', 'truncated_context')",
        "round_in_chain": "round >= 0 AND round < chain_length",
    },
)

AUGMENTED_TEXTS = Table(
    "augmented_texts",
    "Finished training texts: a chain with its pairs rendered through templates, or a document without pairs as it is.",
    (
        Column("text_id", STRING, "hash of chain, view, seed and template version"),
        Column("chain_id", STRING, "chain the text was made from"),
        Column("doc_ids", ArrayType(STRING), "doc_id:chunk of the documents inside, in order"),
        Column("source", STRING, "name of the source"),
        Column("domain", STRING, "subject area of the source"),
        Column("mode", STRING, "classic, dialogue, numbered, inline, next_turn, or raw"),
        Column("inverted", BOOLEAN, "whether the pairs stand before the text"),
        Column("template_ids", ArrayType(STRING), "templates used, in order of use"),
        Column("template_version", STRING, "language and fingerprint of the template bank"),
        Column("seed", LONG, "seed of the rendering"),
        Column("n_pairs", INT, "pairs rendered"),
        Column("n_shots", INT, "documents with pairs inside"),
        Column("text", STRING, "the finished text, without BOS and EOS"),
    ),
    key=("text_id",),
    checks={"text_not_empty": "length(text) > 0"},
)

TUNING_EXAMPLES = Table(
    "tuning_examples",
    "Question-answering sets in {context, QA_list} form, for tuning the synthesizer.",
    (
        Column("example_id", STRING, "hash of dataset, context and pairs"),
        Column("dataset", STRING, "name of the set in the collection"),
        Column("context", STRING, "the text the questions are about"),
        Column("QA_list", ArrayType(QUESTION), "questions and answers, options and reasoning inside them"),
        Column("n_pairs", INT, "length of QA_list"),
        Column("license", STRING, "licence of the set", nullable=True),
        Column("uri", STRING, "file and record number"),
    ),
    key=("example_id",),
    checks={"context_not_empty": "length(context) > 0", "has_pairs": "n_pairs > 0"},
)

INSTRUCTIONS = Table(
    "instructions",
    "General instructions with their responses; system prompts are dropped.",
    (
        Column("instruction_id", STRING, "hash of question and response"),
        Column("source", STRING, "name of the source"),
        Column("question", STRING, "the instruction, with its input where it has one"),
        Column("response", STRING, "the response"),
        Column("license", STRING, "licence of the source", nullable=True),
        Column("uri", STRING, "file and record number"),
    ),
    key=("instruction_id",),
    checks={"question_not_empty": "length(question) > 0", "response_not_empty": "length(response) > 0"},
)

CONVERSATIONS = Table(
    "conversations",
    "Chat data for instruction tuning, turn by turn.",
    (
        Column("conversation_id", STRING, "hash of dataset, roles and contents"),
        Column("dataset", STRING, "name of the set, the record's own where it has one"),
        Column("record", STRING, "the record's own id", nullable=True),
        Column("messages", ArrayType(MESSAGE), "turns; role: system, user, assistant, or prompt and completion"),
        Column("license", STRING, "licence of the set", nullable=True),
        Column("uri", STRING, "file and record number"),
    ),
    key=("conversation_id",),
    checks={"has_messages": "size(messages) > 0"},
)

TOKEN_SHARDS = Table(
    "token_shards",
    "Shard files written for the trainer, with what is in them and where it came from.",
    (
        Column("shard_set", STRING, "name of the set the shard belongs to"),
        Column("fingerprint", STRING, "fingerprint of the set: inputs, tokenizer and settings"),
        Column("path", STRING, "file, relative to the folder of the set"),
        Column("sha256", STRING, "SHA-256 of the file"),
        Column("rows", LONG, "packed sequences"),
        Column("tokens", LONG, "tokens without padding"),
        Column("documents", LONG, "texts inside"),
        Column("bytes", LONG, "size of the file"),
        Column("source", STRING, "table the texts came from"),
        Column("source_version", LONG, "Delta version of that table"),
        Column("tokenizer_hash", STRING, "hash of the tokenizer"),
        Column("sequence_length", INT, "tokens per row, padding included"),
    ),
    key=("shard_set", "fingerprint", "path"),
)

EVALUATIONS = Table(
    "evaluations",
    "Scores of models and of the synthesizer, one row per metric.",
    (
        Column("subject", STRING, "what was scored: a model or a table"),
        Column("task", STRING, "task, e.g. almanac_facts"),
        Column("metric", STRING, "name of the metric"),
        Column("value", DOUBLE, "the score"),
        Column("low", DOUBLE, "lower end of the 95% confidence interval", nullable=True),
        Column("high", DOUBLE, "upper end of the 95% confidence interval", nullable=True),
        Column("n", LONG, "items scored"),
    ),
    key=("subject", "task", "metric", "run_id"),
)

_REASON_LIST = ", ".join(f"'{reason}'" for reason in sorted(REASONS))

REJECTS = Table(
    "rejects",
    "Every record that did not go on, with the reason. Nothing is dropped silently.",
    (
        Column("stage", STRING, "verb that rejected the record"),
        Column("record_id", STRING, "id of the record where it has one, else its place in the input"),
        Column("reason", STRING, "one of a closed list"),
        Column("detail", STRING, "what exactly was wrong", nullable=True),
        Column("payload", STRING, "the record, cut to a bounded length", nullable=True),
    ),
    key=("stage", "record_id", "reason"),
    checks={"reason_known": f"reason IN ({_REASON_LIST})"},
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RAW_DOCUMENTS,
        DOCUMENTS,
        SYNTHESES,
        AUGMENTED_TEXTS,
        TUNING_EXAMPLES,
        INSTRUCTIONS,
        CONVERSATIONS,
        TOKEN_SHARDS,
        EVALUATIONS,
        REJECTS,
    )
}


def outcome_schema(*names: str) -> StructType:
    """Schema of a stage's outcome: one nullable struct column for each table it writes."""
    return StructType([StructField(name, TABLES[name].schema, True) for name in names])
