"""What the turns of replayed tasks come to: by task, by tier, and of all rounds. Knows no socket and no file."""

import statistics

TIERS = ("latency", "throughput")
# What a response says of the tier that served it.
TIER_OF = {"priority": "latency", "default": "throughput"}


def pace_s(pace, tokens):
    """What an engine of this pace takes for an answer by itself: to its first token, and from there to its last."""
    first_ms, per_second = pace
    return first_ms / 1000 + (tokens - 1) / per_second


def task(wall_s, tools_s, turns, paces):
    """One task. A turn is a dict of `tier`, `ttft_s`, `input`, `output` (tokens), `is_plan`; `paces` has (ms, tokens/s) of each tier."""
    models_s = sum(pace_s(paces[turn["tier"]], turn["output"]) for turn in turns)
    tiers = {}
    for tier in TIERS:
        of = [turn for turn in turns if turn["tier"] == tier]
        tiers[tier] = {"turns": len(of), "input": sum(turn["input"] for turn in of), "output": sum(turn["output"] for turn in of)}
    ttfts = {kind: [1000 * turn["ttft_s"] for turn in turns if turn["is_plan"] == (kind == "plan")] for kind in ("plan", "work")}
    return {"wall_s": wall_s, "tools_s": tools_s, "models_s": models_s, "rest_s": wall_s - tools_s - models_s, "tiers": tiers, "ttfts_ms": ttfts}


def all_of(tasks):
    """Medians over the tasks of one way: of the times, and of all turns' times to the first token. Tokens are the same in each, or it says so by an error."""
    tokens = tasks[0]["tiers"]
    if any(one["tiers"] != tokens for one in tasks):
        raise ValueError(f"tasks that are meant to be one differ: {[one['tiers'] for one in tasks]}")
    found = {name: statistics.median(one[name] for one in tasks) for name in ("wall_s", "tools_s", "models_s", "rest_s")}
    for kind in ("plan", "work"):
        ttfts = [ttft for one in tasks for ttft in one["ttfts_ms"][kind]]
        found |= {f"ttft_{kind}_p50_ms": statistics.median(ttfts), f"ttft_{kind}_max_ms": max(ttfts)}
    return found | {"tiers": tokens, "tasks": len(tasks), "wall_min_s": min(one["wall_s"] for one in tasks), "wall_max_s": max(one["wall_s"] for one in tasks)}


def table(rows):
    head = ["transport", "route", "task, s", "least - most", "models' pace, s (share)", "tools, s", "all else, ms a turn", "TTFT of plans, ms", "of the turns after tools", "longest"]
    head += ["turns latency / throughput", "tokens out", "tokens in, thousands"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        found, tiers = row["median"], row["median"]["tiers"]
        pair = lambda name, divide=1: " / ".join(f"{tiers[tier][name] / divide:,.0f}" for tier in TIERS)  # noqa: E731
        count = sum(tiers[tier]["turns"] for tier in TIERS)
        lines.append([
            row["transport"], row["route"], f"{found['wall_s']:.1f}", f"{found['wall_min_s']:.1f} - {found['wall_max_s']:.1f}",
            f"{found['models_s']:.1f} ({100 * found['models_s'] / found['wall_s']:.0f} %)", f"{found['tools_s']:.1f}", f"{1000 * found['rest_s'] / count:.1f}",
            f"{found['ttft_plan_p50_ms']:.0f}", f"{found['ttft_work_p50_ms']:.0f}", f"{max(found['ttft_plan_max_ms'], found['ttft_work_max_ms']):.0f}",
            pair("turns"), pair("output"), pair("input", 1000),
        ])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
