"""One bar chart as SVG, readable on a light and on a dark page and without eyes. Knows nothing of what is measured."""

import html
import math

WIDTH = 760
LABEL_WIDTH = 230
VALUE_WIDTH = 90
BAR = 16
GAP = 6
GROUP_GAP = 22
HEAD = 58
FOOT = 46

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .quiet, .tick { fill: #57606a; font-size: 12px }
  .grid { stroke: #8c959f; stroke-opacity: 0.35 }
  .other { fill: #8c959f }
  .ours { fill: #0969da }
  .bound { stroke: #bc4c00; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .quiet, .tick { fill: #9198a1 }
    .other { fill: #6e7681 }
    .ours { fill: #4493f8 }
    .bound { stroke: #f0883e }
  }
"""


def short(value):
    """Three digits that matter."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits):,.{min(digits, 3)}f}"


def ticks(largest, count=5):
    """Round numbers from 0 to at least `largest`, about so many."""
    if not largest > 0:
        return [0, 1]
    rough = largest / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    return [step * at for at in range(math.ceil(largest / step - 1e-9) + 1)]


def chart(title, unit, groups, note=""):
    """The SVG's text. A group is (its name, its bars); a bar is a dict of `label`, `value`, and if wanted `ours` and
    `bound`, the least that there could be. What is less than nothing, as differences may be, has no length."""
    bars = [bar for _, group in groups for bar in group]
    axis = ticks(max([bar["value"] for bar in bars] + [bar.get("bound") or 0 for bar in bars]))
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH

    def x(value):
        return LABEL_WIDTH + room * value / axis[-1]

    body, spans, y = [], [], HEAD
    for name, group in groups:
        if name:
            body.append(f'<text class="quiet" x="0" y="{y + 12}">{html.escape(name)}</text>')
            y += GROUP_GAP
        top = y
        for bar in group:
            kind = "ours" if bar.get("ours") else "other"
            middle = y + BAR - 3.5
            body.append(f'<text x="{LABEL_WIDTH - 8}" y="{middle}" text-anchor="end">{html.escape(bar["label"])}</text>')
            body.append(f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{y}" width="{max(x(bar["value"]) - LABEL_WIDTH, 1):.1f}" height="{BAR}" rx="2"/>')
            body.append(f'<text x="{x(max(bar["value"], bar.get("bound") or 0)) + 6:.1f}" y="{middle}">{short(bar["value"])}</text>')
            if bar.get("bound"):
                body.append(f'<line class="bound" x1="{x(bar["bound"]):.1f}" x2="{x(bar["bound"]):.1f}" y1="{y - 2}" y2="{y + BAR + 2}"/>')
            y += BAR + GAP
        spans.append((top - 4, y - GAP + 4))
        y += GROUP_GAP - GAP
    bottom = y - GROUP_GAP + GAP
    grid = []
    for tick in axis:
        for top, end in spans:
            grid.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{end}"/>')
        grid.append(f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:,g}</text>')
    told = "; ".join(
        f"{name + ', ' if name else ''}{bar['label']} {short(bar['value'])}" + (f" (least possible {short(bar['bound'])})" if bar.get("bound") else "")
        for name, group in groups
        for bar in group
    )
    height = bottom + FOOT
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="title desc">
<title id="title">{html.escape(title)}</title>
<desc id="desc">In {html.escape(unit)}: {html.escape(told)}.</desc>
<style>{STYLE}</style>
<text class="title" x="0" y="18">{html.escape(title)}</text>
<text class="quiet" x="0" y="38">{html.escape(unit)}</text>
{chr(10).join(grid + body)}
<text class="quiet" x="0" y="{height - 6}">{html.escape(note)}</text>
</svg>
"""
