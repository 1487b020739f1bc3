"""Whether something grows: a line through what was sampled, and how sure it is. It knows nothing of what is sampled."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

BLOCKS = 12
# Student's t, two-sided 95 %, for BLOCKS - 2 degrees of freedom.
T_95 = 2.228


@dataclass(frozen=True)
class Slope:
    """In units an hour; the true one lies within `give` of it, 95 times of 100, as far as blocks are independent."""

    per_hour: float
    give: float

    def __str__(self) -> str:
        return f"{self.per_hour:+.2f} ± {self.give:.2f}"


def slope(samples: list[tuple[float, float]]) -> Slope:
    """Of (seconds, value). Neighbouring samples are alike and peaks are short, so that the medians of a dozen blocks make the line, not the samples."""
    began, ended = samples[0][0], samples[-1][0]
    blocks: list[list[tuple[float, float]]] = [[] for _ in range(BLOCKS)]
    for at, value in samples:
        blocks[min(BLOCKS - 1, int((at - began) / (ended - began) * BLOCKS))].append((at, value))
    points = [(statistics.mean(at for at, _ in block) / 3600, statistics.median(value for _, value in block)) for block in blocks if block]
    if len(points) < BLOCKS:
        raise ValueError(f"{len(samples)} samples do not fill {BLOCKS} blocks")
    xs, ys = zip(*points)
    line = statistics.linear_regression(xs, ys)
    middle = statistics.mean(xs)
    spread = sum((x - middle) ** 2 for x in xs)
    left_over = sum((y - line.intercept - line.slope * x) ** 2 for x, y in points)
    return Slope(line.slope, T_95 * (left_over / (BLOCKS - 2) / spread) ** 0.5)
