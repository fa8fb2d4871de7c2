"""Report data made up for the tests of plots, page and summary."""

from jobs.reporting.data import Arm, Example, LossCurve, Rendering, ReportData, Score, ShardSet, StepTime, Synthesis

HOSTILE = '<script>alert("x")</script> & </CON> $a_1$'


def scores() -> list[Score]:
    """Two models, their difference, chance, and the synthesizer."""
    found = [Score("chance", "facts", "acc", 0.25, None, None, 100)]
    for subject, value in (("vanilla", 0.0), ("instruct", 0.7), ("instruct - vanilla", 0.7)):
        for metric in ("acc", "acc_norm", "exact_match"):
            found.append(Score(subject, "facts", metric, value, max(0.0, value - 0.1), value + 0.1, 100))
    for subject in ("synthesizer", "synthesizer on people"):
        found.append(Score(subject, "synthesis", "share_well_formed", 0.9, 0.8, 0.95, 50))
        found.append(Score(subject, "synthesis", "share_grounded", 0.8, 0.7, 0.9, 45))
    return found


def full_report() -> ReportData:
    """Every part is there."""
    steps = [float(step) for step in range(1, 101)]
    return ReportData(
        received={HOSTILE: 3, "places": 2},
        collected={"almanac_free_form": 4},
        rejects={("curate", "duplicate"): 1},
        arms={"convert": Arm(3, 170)},
        document_tokens={50: 1, 61: 2},
        synthesis=Synthesis(
            documents=3,
            chains=2,
            pairs=12,
            rejected_pairs={"truncated": 1},
            formats={"free_form": 12},
            statuses={"ok": 3},
            pairs_per_document={4: 3},
            completion_tokens={90: 1, 400: 2},
        ),
        modes={"classic": 2},
        shard_sets=[ShardSet("raw", 10, 2000, 5, 40_000, 256)],
        steps=[StepTime("ingest", "ingest", 2.0, 5), StepTime("sample", "sample", 0.0, 0)],
        curves={
            "vanilla": LossCurve(steps, [9.0 - step / 50 for step in steps], 12.5),
            "instruct": LossCurve(steps, [9.0 - step / 25 for step in steps], 0.0),
        },
        scores=scores(),
        examples=[
            Example(
                name=HOSTILE,
                status="ok",
                context=f"Context {HOSTILE}",
                completion=f"Completion {HOSTILE}",
                pairs=[{"instruction": f"Why {HOSTILE}", "response": HOSTILE, "format": "free_form"}],
                rejected_pairs=[{"text": f"Piece {HOSTILE}", "reason": "truncated"}],
            )
        ],
        renderings=[
            Rendering(
                name=f"Chain {HOSTILE}",
                templates=["free_form/q-a"],
                text=f"Rendered {HOSTILE}",
                pairs=[{"instruction": f"How {HOSTILE}", "response": f"So {HOSTILE}", "format": "free_form"}],
            )
        ],
    )
