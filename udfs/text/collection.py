"""The tuning collection of the published synthesizer (``ft-instruction-synthesizer-collection``): 35 folders, by name.

Each is ``<dataset>/shard/*.jsonl`` with records ``{context, QA_list}``. The list printed on its card lacks two commas,
so that a copy of it names two folders that do not exist; names are therefore checked, against this list and against
the folders that are there.
"""

from collections.abc import Collection, Sequence

from udfs.errors import ConfigError

DATASETS = (
    "squad",
    "TopiOCQA",
    "HotpotQA",
    "WikiTableQuestions",
    "Quac",
    "QED",
    "FairyTaleQA",
    "mctest",
    "NarrativeQA",
    "race",
    "race_c",
    "ReClor",
    "LogiQA",
    "AQUA_RAT_yes_opt",
    "TriviaQA",
    "CosmosQA",
    "ECQA",
    "NLQuAD",
    "NewsQA",
    "tweet_qa",
    "quail",
    "dream",
    "multirc",
    "ROPES",
    "QuaRTz",
    "CoQA",
    "DoQA",
    "qasper",
    "PubMedQA_no_opt",
    "PubMedQA_yes_opt",
    "COVID_QA",
    "ConvFinQA",
    "SpartQA",
    "bAbI",
    "QASC",
)


def check_names(names: Sequence[str]) -> None:
    """Every name is one of the collection's, each once.

    Raises:
        ConfigError: names that are not, each with what is wrong about it.
    """
    wrong = [f"{name!r} {_explanation(name)}" for name in names if name not in DATASETS]
    wrong += [f"{name!r} is named {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]
    if wrong:
        raise ConfigError(f"datasets of the collection: {'; '.join(wrong)}. Known: {', '.join(DATASETS)}.")


def check_folders(wanted: Sequence[str], found: Collection[str], path: str) -> None:
    """Every wanted dataset has its folder, and every folder is one of the collection's.

    Raises:
        ConfigError: folders that are missing, and folders of other names.
    """
    missing = [name for name in wanted if name not in found]
    strange = sorted(name for name in found if name not in DATASETS)
    said = [f"missing: {', '.join(missing)}"] if missing else []
    said += [f"not of the collection: {name!r} {_explanation(name)}" for name in strange]
    if said:
        raise ConfigError(f"{path} is not the tuning collection as published. {'; '.join(said)}.")


def _explanation(name: str) -> str:
    fused = next(
        ((left, name[len(left) :]) for left in DATASETS if name[len(left) :] in DATASETS and name.startswith(left)),
        None,
    )
    if fused:
        return f"is two names run together: {fused[0]} and {fused[1]}"
    folded = next((known for known in DATASETS if known.lower() == name.lower()), None)
    return f"must be spelled {folded!r}" if folded else "is unknown"
