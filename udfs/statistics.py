"""Confidence intervals for shares and for the difference of two models on the same questions."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054  # 97.5% quantile of the standard normal: two-sided 95%


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% confidence interval [``low``, ``high``], from ``n`` items."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: int) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927), which stays inside [0, 1] and holds for small n.

    Raises:
        ValueError: ``n`` below 1 or ``successes`` outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a share needs n >= 1 and 0 <= successes <= n, not {successes} of {n}.")
    share = successes / n
    scale = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / scale
    half = Z_95 / scale * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return Estimate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), n)


def paired_difference(
    treatment: Sequence[float], baseline: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Mean of ``treatment - baseline`` over the same items, with a 95% interval.

    Items of one cluster (questions about one subject) may rise and fall together, so the standard error is the
    cluster-robust one of a mean. One item of +1 and one of -1 are added for the interval: without clusters this is the
    adjusted Wald interval of Bonett and Price (2012), which does not collapse when both models agree everywhere. With
    fewer than about 20 clusters of several items the interval is too short.

    Args:
        treatment: scores in [0, 1], one per item.
        baseline: scores of the other model, same items in the same order.
        clusters: one label per item; None makes every item its own cluster.

    Raises:
        ValueError: no items, or sequences of different length.
    """
    labels = list(range(len(treatment))) if clusters is None else list(clusters)
    if not treatment or not len(treatment) == len(baseline) == len(labels):
        raise ValueError(
            f"a paired difference needs the same items, at least one: got {len(treatment)} treatment, "
            f"{len(baseline)} baseline and {len(labels)} cluster entries."
        )
    differences = [right - left for right, left in zip(treatment, baseline, strict=True)]
    n = len(differences)
    adjusted = [*differences, 1.0, -1.0]
    owners: list[Hashable] = [*(("item", label) for label in labels), "more", "less"]
    centre = sum(adjusted) / len(adjusted)
    sums: dict[Hashable, float] = defaultdict(float)
    for owner, difference in zip(owners, adjusted, strict=True):
        sums[owner] += difference - centre
    half = Z_95 * math.sqrt(sum(total * total for total in sums.values())) / len(adjusted)
    value = sum(differences) / n
    return Estimate(value, max(-1.0, min(value, centre - half)), min(1.0, max(value, centre + half)), n)
