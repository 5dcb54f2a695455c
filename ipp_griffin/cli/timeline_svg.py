"""A `timeline.Timeline` as a picture. Pure, and the same for the same timeline."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

from ..common.text import one_line
from ..model.phases import START
from ..model.timeline import Timeline, Track, summary

NAMESPACE = "http://www.w3.org/2000/svg"
COLOURS = ("#8a8f98", "#d08a00", "#2f81c7", "#8e63ce", "#12988a", "#3f9142")  # seen on white and on black, and apart
ROW, BAR, TOP, LEFT, RIGHT, WIDTH = 24, 16, 72, 200, 190, 1000  # pixels
LETTER = 7.2  # pixels of a letter, at most
TICKS = 8  # about as many
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .paper { fill: #ffffff } .grid { stroke: #d0d7de } .note { fill: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .paper { fill: #0d1117 } .grid { stroke: #3d444d } .note { fill: #9198a1 }
}
"""


def as_svg(shown: Timeline, title: str) -> str:
    """Return a bar for each server, in the colours of its phases, over an axis in seconds."""
    footer = summary(shown)
    bottom = TOP + ROW * len(shown.tracks)
    height = bottom + 40 + 18 * len(footer)
    left = max(LEFT, *(24 + round(len(str(track.place)) * LETTER) for track in shown.tracks))
    scale = (WIDTH - left - RIGHT) / shown.seconds
    svg = ET.Element(
        "svg", {"xmlns": NAMESPACE, "viewBox": f"0 0 {WIDTH} {height}", "width": f"{WIDTH}", "role": "img"}
    )
    ET.SubElement(svg, "title").text = title
    ET.SubElement(svg, "style").text = STYLE
    _add(svg, "rect", width=WIDTH, height=height, **{"class": "paper"})
    _text(svg, 12, 24, title, "title")
    _legend(svg)
    for at in ticks(shown.seconds):
        x = left + at * scale
        _add(svg, "line", x1=x, x2=x, y1=TOP - 4, y2=bottom + 4, **{"class": "grid"})
        _text(svg, x, bottom + 20, f"{at:.9g} s", "note", **{"text-anchor": "middle"})
    for number, track in enumerate(shown.tracks):
        _row(svg, track, shown, TOP + ROW * number, left, scale)
    for number, line in enumerate(footer):
        _text(svg, 12, bottom + 44 + 18 * number, line, "note")
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def ticks(seconds: float) -> list[float]:
    """Return round numbers from 0 to ``seconds``."""
    rough = seconds / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(number * step, 6) for number in range(int(seconds / step) + 1)]


def _row(svg: ET.Element, track: Track, shown: Timeline, y: float, left: float, scale: float) -> None:
    _text(svg, 12, y + BAR - 3, str(track.place))
    seconds = track.seconds()
    end = left
    for phase, start, stop in track.spans(shown.zero, shown.end):
        end = left + stop * scale
        bar = _add(
            svg, "rect", x=left + start * scale, y=y, width=(stop - start) * scale, height=BAR, fill=_colour(phase)
        )
        since = f"{phase}, {seconds[phase]:.1f} s after its request, for {stop - start:.1f} s"
        ET.SubElement(bar, "title").text = f"{track.name}: {since}"
    took = f"{seconds['engines']:.1f} s" if "engines" in seconds else ""
    note = _text(svg, end + 6, y + BAR - 3, " ".join(part for part in (took, one_line(track.why, 24)) if part), "note")
    if track.why:
        ET.SubElement(note, "title").text = track.why


def _legend(svg: ET.Element) -> None:
    x = 12.0
    for phase in START:
        _add(svg, "rect", x=x, y=38, width=12, height=12, fill=_colour(phase))
        _text(svg, x + 18, 48, phase)
        x += 36 + len(phase) * LETTER


def _colour(phase: str) -> str:
    return COLOURS[START.index(phase)]


def _text(svg: ET.Element, x: float, y: float, text: str, kind: str = "", **attributes: str) -> ET.Element:
    element = _add(svg, "text", x=x, y=y, **({"class": kind} if kind else {}), **attributes)
    element.text = text
    return element


def _add(svg: ET.Element, name: str, **attributes: float | str) -> ET.Element:
    texts = {k: v if isinstance(v, str) else f"{v:.2f}".rstrip("0").rstrip(".") for k, v in attributes.items()}
    return ET.SubElement(svg, name, texts)
