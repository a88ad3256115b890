"""Draws docs/circuit.svg: one E-I layer. Run it after changing it: python docs/circuit.py"""

from pathlib import Path

from eisnn_zoo.figures import EXCITATION as E
from eisnn_zoo.figures import GREY as SOFT
from eisnn_zoo.figures import INHIBITION as I
from eisnn_zoo.figures import INK

CAPTION = ("Every weight and gain is non-negative (Dale\u2019s law). No normalisation layer anywhere: inhibition keeps the activity "
           "in range.")


def circle(x, y, r, colour, label):
    return (f'<circle cx="{x}" cy="{y}" r="{r}" fill="{colour}" fill-opacity=".14" stroke="{colour}" stroke-width="2.5"/>'
            f'<text x="{x}" y="{y + 6}" text-anchor="middle" font-size="19" fill="{colour}" font-weight="600">{label}</text>')


def text(x, y, s, size=16, colour=INK, weight="400"):
    return f'<text x="{x}" y="{y}" text-anchor="middle" font-size="{size}" fill="{colour}" font-weight="{weight}">{s}</text>'


def arrow(x1, y1, x2, y2, colour, inhibits=False, bend=0.0):
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2 - bend
    end = "bar" if inhibits else "tip"
    return (f'<path d="M{x1} {y1} Q{cx} {cy} {x2} {y2}" fill="none" stroke="{colour}" stroke-width="2.5" '
            f'marker-end="url(#{end}-{"i" if colour == I else "e"})"/>')


def sub(w, s):
    return f'{w}<tspan dy="4" font-size="70%">{s}</tspan><tspan dy="-4">\u200b</tspan>'


def markers():
    out = ""
    for key, colour in (("e", E), ("i", I)):
        out += (f'<marker id="tip-{key}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
                f'<path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
                f'<marker id="bar-{key}" viewBox="0 0 10 14" refX="5" refY="7" markerWidth="7" markerHeight="10" orient="auto">'
                f'<path d="M5 0V14" stroke="{colour}" stroke-width="3.4"/></marker>')
    return f"<defs>{out}</defs>"


def box(x, y, w, h, colour, label):
    return (f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="10" fill="{colour}" fill-opacity=".10" stroke="{colour}" '
            f'stroke-width="2"/>' + text(x + w / 2, y + h / 2 + 6, label, 18, colour, weight="600"))


def draw() -> str:
    parts = [
        markers(),
        circle(90, 170, 44, E, "x"), text(90, 240, "spikes of the layer below,", 13, SOFT), text(90, 257, "or pixels in [0, 1]", 13, SOFT),
        circle(300, 265, 40, I, sub("I", "IE")), text(300, 330, "inhibitory cells: one for four", 13, SOFT),
        text(300, 347, "excitatory ones, linear", 13, SOFT),
        arrow(134, 158, 452, 105, E, bend=26), text(285, 92, sub("W", "EE"), 18, E, weight="600"), text(285, 72, "excites", 13, SOFT),
        arrow(132, 186, 262, 248, E), text(215, 200, sub("W", "IE"), 18, E, weight="600"),
        arrow(336, 248, 452, 130, I, True), text(366, 172, sub("W", "EI"), 18, I, weight="600"), text(366, 153, "subtracts", 13, SOFT),
        arrow(340, 268, 452, 262, I, True), text(396, 290, f'{sub("W", "EI")} {sub("g", "I")}', 18, I, weight="600"),
        text(396, 311, "divides", 13, SOFT),
        box(462, 86, 150, 60, E, f'{sub("I", "EE")} \u2212 {sub("I", "sub")}'), box(462, 232, 150, 60, I, f'D({sub("I", "div")})'),
        text(537, 316, "never zero: adaptive", 13, SOFT), text(537, 333, "stabilization", 13, SOFT),
        f'<path d="M537 146V172" stroke="{INK}" stroke-width="2.5"/><path d="M537 232V206" stroke="{INK}" stroke-width="2.5"/>',
        text(537, 198, "\u00f7", 34, INK, weight="700"),
        f'<path d="M560 189H668" stroke="{INK}" stroke-width="2.5" marker-end="url(#tip-e)"/>',
        text(612, 178, f"\u00d7 {sub('g', 'E')}, + {sub('b', 'E')}", 16, INK),
        circle(722, 189, 44, E, "LIF"), text(722, 258, "leaky integrate-and-fire:", 13, SOFT),
        text(722, 275, "v \u2190 v/2 + I, spike at v \u2265 1", 13, SOFT),
        f'<path d="M768 189H840" stroke="{E}" stroke-width="2.5" marker-end="url(#tip-e)"/>',
        "".join(f'<path d="M{862 + 13 * i} {205 if up else 197}V{170 if up else 193}" stroke="{E if up else SOFT}" stroke-width="3"/>'
                for i, up in enumerate((0, 1, 0, 0, 1, 1, 0, 1))),
        text(907, 232, "spikes over T steps", 13, SOFT),
        text(480, 396, CAPTION, 15, INK),
    ]
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 990 420" font-family="Inter, Segoe UI, Helvetica, Arial, sans-serif" '
            'role="img" aria-label="One excitatory-inhibitory layer"><rect width="990" height="420" rx="14" fill="#ffffff"/>'
            + "".join(parts) + "</svg>\n")


if __name__ == "__main__":
    Path(__file__).with_name("circuit.svg").write_text(draw(), encoding="utf-8")
