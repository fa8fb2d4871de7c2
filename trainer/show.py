"""``--show-tokens``: the first batch of a training, decoded, with the weight that each token has as a target.

The weights are read from the very batch the loss would get, so what is shown is what is learned.
"""

import io
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.config import TrainingConfig, batch_shape
from trainer.data.loader import Batch, Loader
from trainer.data.objective import role_weights
from trainer.data.sources import ShardSet, mixture, open_sets
from udfs.shards.format import ROLES
from udfs.tokens import Tokenizer, load_tokenizer

_WIDTH = 140  # columns of the page


def sample_page(config: TrainingConfig) -> str:
    """The same as an HTML page.

    Raises:
        ConfigError, DataError: as for a training.
    """
    console = Console(record=True, file=io.StringIO(), width=_WIDTH, force_terminal=True)
    show_tokens(config, console)
    return console.export_html(clear=True)


def show_tokens(config: TrainingConfig, console: Console) -> None:
    """Print the first micro-batch, document by document; a line is a run of tokens of one role and weight.

    Nothing in a text can act as markup or control the terminal: unprintable characters are shown by their escapes.

    Raises:
        ConfigError, DataError: as for a training.
    """
    sets = open_sets(config)
    names = list(sets)
    micro, _ = batch_shape(config, 1)
    loader = Loader(
        mixture(config, sets),
        list(sets.values()),
        role_weights(config.objective),
        config.batch.sequences,
        micro,
        rank=0,
        world_size=1,
        by_example=config.normalisation == "example",
    )
    batch = loader.read(0)[0]
    loader.close()
    tokenizer = load_tokenizer(config.tokenizer or sets[names[0]].manifest.tokenizer)
    greatest = float(batch.weights.max()) if len(batch.weights) else 1.0
    for number, (source, row) in enumerate(batch.rows):
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(justify="right")
        for label in ("role", "tokens"):
            table.add_column(label)
        table.add_column("text", overflow="fold")
        for cells in _lines(batch, number, sets[names[source]], row, tokenizer, greatest):
            table.add_row(*cells)
        console.print(Text(f"\n{names[source]}, row {row}", style="bold"))
        console.print(table)
    learned = len(batch.weights)
    console.print(
        f"\n{len(batch.rows)} rows, {batch.tokens:,} tokens, {learned:,} of them learned, "
        f"weight {float(batch.weights.double().sum()):,.6g}; objective {config.objective}, by {config.normalisation}",
        markup=False,
        highlight=False,
    )


def _lines(
    batch: Batch, number: int, entry: ShardSet, row: int, tokenizer: Tokenizer, greatest: float
) -> Iterator[tuple[Text, ...]]:
    """Cells ``weight, role, tokens, text`` of one row of the batch."""
    length = batch.input_ids.shape[1]
    weights = np.zeros(batch.input_ids.numel(), np.float32)
    weights[batch.positions.numpy() + 1] = batch.weights.numpy()
    weights = weights.reshape(-1, length)[number]
    reader, index = entry.locate(row)
    roles, start = reader.roles(index), 0
    for name, ids in reader.documents(index):
        stop = start + len(ids)
        share = weights[start:stop]
        yield Text(""), Text(""), Text(f"{len(ids)}"), Text(f"document {_visible(name)}", style="italic")
        kinds = np.full(len(ids), -1) if roles is None else roles[start:stop].astype(int)
        changes = np.flatnonzero((np.diff(share) != 0) | (np.diff(kinds) != 0)) + 1
        for first, last in zip([0, *changes], [*changes, len(ids)], strict=True):
            weight, kind = float(share[first]), int(kinds[first])
            style = "dim" if weight == 0 else "green" if weight == greatest else "yellow"
            yield (
                Text(f"{weight:.4g}", style=style),
                Text(ROLES[kind] if kind >= 0 else ""),
                Text(f"{last - first}"),
                Text(_visible(tokenizer.decode(ids[first:last].tolist())), style=style),
            )
        start = stop
    if start < length:
        yield Text("0", style="dim"), Text("padding"), Text(f"{length - start}"), Text("")


def _visible(text: str) -> str:
    return "".join(
        character if character.isprintable() else "\\n\n" if character == "\n" else ascii(character)[1:-1]
        for character in text
    )
