"""One line chart as SVG, readable on a light and on a dark page and without eyes. Knows nothing of what is measured."""

import html
import math

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 76, 240, 58, 62
LABEL = 16

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .quiet, .tick { fill: #57606a; font-size: 12px }
  .grid { stroke: #8c959f; stroke-opacity: 0.35 }
  .line { fill: none; stroke-width: 2 }
  .ours { stroke: #0969da }
  .wafer { stroke: #bc4c00 }
  .gpu { stroke: #6e7781 }
  .dashed { stroke-dasharray: 7 4 }
  .dotted { stroke-dasharray: 2 4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .quiet, .tick { fill: #9198a1 }
    .ours { stroke: #4493f8 }
    .wafer { stroke: #f0883e }
    .gpu { stroke: #9198a1 }
  }
"""


def short(value):
    """Three digits that matter."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, digits):,.{min(digits, 3)}f}"


def ticks(least, most, is_log):
    """Round numbers that hold both between them."""
    if is_log:
        low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
        return [10.0**power for power in range(low, max(high, low + 1) + 1)]
    rough = (most - least) / 5 or 1
    power = 10 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    return [least + step * at for at in range(math.ceil((most - least) / step - 1e-9) + 1)]


def apart(wanted):
    """Heights of labels, moved so far that none covers another; in the order given."""
    placed = {}
    last = TOP - LABEL
    for at, y in sorted(enumerate(wanted), key=lambda pair: pair[1]):
        last = placed[at] = max(y, last + LABEL)
    return [placed[at] for at in range(len(wanted))]


def chart(title, unit, across, series, note="", *, is_log=False, least=0.0, most=None):
    """The SVG's text. A series is (its label, its classes, its points (x, y)); `least` and `most` bound an axis that is not
    logarithmic."""
    series = [(label, kind, sorted(points)) for label, kind, points in series if points]
    xs = [x for _, _, points in series for x, _ in points]
    ys = [y for _, _, points in series for _, y in points]
    axis = ticks(min(ys) if is_log else least, most or max(ys), is_log)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    scale = math.log10 if is_log else float

    def px(x):
        return LEFT + (right - LEFT) * (x - min(xs)) / ((max(xs) - min(xs)) or 1)

    def py(y):
        return bottom - (bottom - TOP) * (scale(y) - scale(axis[0])) / (scale(axis[-1]) - scale(axis[0]))

    body = []
    for tick in axis:
        body.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{py(tick):.1f}" y2="{py(tick):.1f}"/>')
        body.append(f'<text class="tick" x="{LEFT - 8}" y="{py(tick) + 4:.1f}" text-anchor="end">{short(tick) if tick < 1 else f"{tick:,.0f}"}</text>')
    for x in sorted(set(xs)):
        body.append(f'<text class="tick" x="{px(x):.1f}" y="{bottom + 18}" text-anchor="middle">{x:,g}</text>')
    body.append(f'<text class="quiet" x="{(LEFT + right) / 2:.0f}" y="{bottom + 36}" text-anchor="middle">{html.escape(across)}</text>')
    heights = apart([py(points[-1][1]) for _, _, points in series])
    for (label, kind, points), height in zip(series, heights):
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        body.append(f'<polyline class="line {kind}" points="{path}"/>')
        body.append(f'<line class="line {kind}" x1="{right + 8}" x2="{right + 30}" y1="{height:.1f}" y2="{height:.1f}"/>')
        body.append(f'<text x="{right + 36}" y="{height + 4:.1f}">{html.escape(label)}</text>')
    told = "; ".join(f"{label}: " + ", ".join(f"{x:g} {short(y)}" for x, y in points) for label, _, points in series)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title desc">
<title id="title">{html.escape(title)}</title>
<desc id="desc">In {html.escape(unit)}, by {html.escape(across)}: {html.escape(told)}.</desc>
<style>{STYLE}</style>
<text class="title" x="0" y="18">{html.escape(title)}</text>
<text class="quiet" x="0" y="38">{html.escape(unit)}</text>
{chr(10).join(body)}
<text class="quiet" x="0" y="{HEIGHT - 6}">{html.escape(note)}</text>
</svg>
"""
