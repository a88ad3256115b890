"""What a network answered, as HTML: the answer in words, and three pictures with captions."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ..analysis.response import Response, draw_evidence, draw_raster, draw_rates, raster_neurons
from ..config import Config
from ..figures import new

RANKED = 3  # classes with their probability
LISTED = 12  # classes named as what the network knows


def hint(sentence: str) -> str:
    return f'<p class="hint">{escape(sentence)}</p>'


def problem(sentence: str) -> str:
    return f'<p class="problem" role="alert">{escape(sentence)}</p>'


def render(pixels: np.ndarray, config: Config, before: Response, now: Response) -> str:
    """The whole result.

    Args:
        pixels: what the network saw, ``[C, H, W]`` in [0, 1].
        before, now: with inhibition as trained and as it is set; the same object where nothing is changed.
    """
    changed = now is not before
    reference, dotted, grey = (before, " Dotted: as trained.", " Grey: as trained.") if changed else (None, "", "")
    neurons = raster_neurons(before, now)
    pictures = [
        _picture(lambda ax: draw_evidence(ax, config.label_names, now, reference), "Evidence for the classes",
                 "What speaks for a class, against the average class. The highest line at the end is the answer." + dotted),
        _picture(lambda ax: draw_rates(ax, now, reference), "Firing rates",
                 "How often the neurons of a layer fire. Layer 1 looks at the picture, the last one decides." + grey),
        _picture(lambda ax: draw_raster(ax, now, neurons), "Spikes now" if changed else "Spikes",
                 "A line is a neuron, a bar is a spike. Some neurons of each layer, the layers one above the other.",
                 wide=not changed)]
    if changed:
        pictures.append(_picture(lambda ax: draw_raster(ax, before, neurons), "Spikes, as trained",
                                 "The same neurons before inhibition was changed."))
    return _answer(pixels, config, before, now) + f'<div class="pictures">{"".join(pictures)}</div>'


def _answer(pixels: np.ndarray, config: Config, before: Response, now: Response) -> str:
    names = config.label_names
    said, ranking = "<b>No answer</b>: not one spike reaches the output.", ""
    if not now.silent:
        best = now.probabilities.topk(min(RANKED, len(names)))
        ranked = [(escape(names[k]), 100 * p) for p, k in zip(best.values.tolist(), best.indices.tolist())]
        said = f"It says <b>{ranked[0][0]}</b>."
        ranking = "".join(f'<li><span>{name}</span><i style="width:{p:.1f}%"></i><span>{p:.0f} %</span></li>'
                          for name, p in ranked)
    compared = f"The neurons sent {now.total_spikes:,} spikes"
    if now is before:
        compared = f"Inhibition is as trained. {compared}."
    else:
        if now.total_spikes and before.total_spikes:
            ratio = now.total_spikes / before.total_spikes
            compared += f", {f'{ratio:.2g}' if ratio < 99 else f'{ratio:,.0f}'} times as many as with inhibition as trained"
        p, k = before.probabilities.max(0)
        compared += ". As trained, it " + ("had no answer." if before.silent else f"says {escape(names[k])} ({100 * p:.0f} %).")
    known = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    height, width = pixels.shape[1:]
    return (f'<div class="answer" aria-live="polite"><figure><img src="{_png(pixels)}" alt="what the network sees">'
            f"<figcaption>What it sees: <span>{width} × {height} pixels</span></figcaption></figure>"
            f'<div><p class="said">{said}</p><ol>{ranking}</ol></div>'
            f'<div><p>{compared}</p><p class="known">It knows {escape(known)}, and takes everything else for one of these.</p>'
            "</div></div>")


# ---- pictures --------------------------------------------------------------------------------------------------------


def _picture(draw: Callable[[Axes], None], title: str, caption: str, wide: bool = False) -> str:
    figure, ((ax,),) = new(1, 1, 8.4 if wide else 4.2, 3.0)
    draw(ax)
    ax.set_title("", loc="left")  # the page's own text is sharper and can be searched
    return (f'<figure{" class=wide" if wide else ""}><h3>{title}</h3><img src="{_svg(figure)}" alt="{title}">'
            f"<figcaption>{caption}</figcaption></figure>")


def _svg(figure: Figure) -> str:
    out = io.BytesIO()
    figure.savefig(out, format="svg", facecolor="white", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"


def _png(pixels: np.ndarray) -> str:
    out = io.BytesIO()
    picture = (255 * pixels).round().astype(np.uint8)
    Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)).save(out, format="png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
