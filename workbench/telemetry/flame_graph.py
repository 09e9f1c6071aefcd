"""Nested names with times as one HTML page: width is time, a click looks closer. Static, and needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

__all__ = ["flame_graph_html"]

_ROW_PX = 18
# Narrower than this share of the whole is not drawn.
_LEAST_SHARE = 0.001
_COLOURS = ("#f4a582", "#fddbc7", "#f7d08a", "#e9c46a", "#f2b5a7", "#ffd6a5")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 12px sans-serif; margin: 12px; color: #222; background: #fff }}
#graph {{ position: relative; height: {height}px }}
#graph button {{ position: absolute; height: {row}px; padding: 0 2px; border: 1px solid #fff; overflow: hidden;
  white-space: nowrap; text-align: left; font: 11px sans-serif; color: #222; cursor: pointer }}
#graph button:focus {{ outline: 2px solid #0057b8 }}
</style></head><body><h1>{title}</h1>
<p>{total}. A wider bar took longer; below it is what it called. Click a bar to look closer, the first to go back.</p>
<div id="graph">{bars}</div><p id="said" aria-live="polite"></p><script>
const bars = [...document.querySelectorAll("#graph button")];
function show(from, width) {{
  for (const bar of bars) {{
    const left = (bar.dataset.from - from) / width, wide = bar.dataset.width / width;
    const inside = left < 1 && left + wide > 0;
    bar.hidden = !inside;
    bar.style.left = 100 * Math.max(0, left) + "%";
    bar.style.width = 100 * (Math.min(1, left + wide) - Math.max(0, left)) + "%";
  }}
}}
for (const bar of bars) bar.onclick = () => {{
  show(+bar.dataset.from, +bar.dataset.width);
  document.getElementById("said").textContent = bar.title;
}};
</script></body></html>
"""


@dataclass
class _Node:
    own_s: float = 0.0
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        return self.own_s + sum(child.total_s for child in self.children.values())

    @property
    def depth(self) -> int:
        return 1 + max((child.depth for child in self.children.values()), default=0)


def flame_graph_html(stacks: Mapping[tuple[str, ...], float], title: str) -> str:
    """The page for `stacks`: a path of names, outermost first, and its own seconds."""
    root = _Node()
    for path, own_s in stacks.items():
        node = root
        for name in path:
            node = node.children.setdefault(name, _Node())
        node.own_s += own_s
    whole_s = root.total_s or 1.0
    bars: list[str] = []
    _draw("all", root, 0.0, 0, whole_s, bars)
    return _PAGE.format(
        title=escape(title),
        height=root.depth * _ROW_PX + 4,
        row=_ROW_PX,
        total=f"{root.total_s * 1e3:,.1f} ms in all",
        bars="".join(bars),
    )


def _draw(name: str, node: _Node, start_s: float, level: int, whole_s: float, bars: list[str]) -> None:
    share = node.total_s / whole_s
    if share < _LEAST_SHARE:
        return
    label = escape(f"{name}: {node.total_s * 1e3:,.2f} ms, {share:.1%}", quote=True)
    colour = _COLOURS[sum(name.encode()) % len(_COLOURS)]
    bars.append(
        f'<button type="button" title="{label}" data-from="{start_s / whole_s:.6f}" data-width="{share:.6f}" '
        f'style="top:{level * _ROW_PX}px;left:{100 * start_s / whole_s:.4f}%;width:{100 * share:.4f}%;'
        f'background:{colour}">{escape(name)}</button>'
    )
    for child_name, child in sorted(node.children.items(), key=lambda item: -item[1].total_s):
        _draw(child_name, child, start_s, level + 1, whole_s, bars)
        start_s += child.total_s
