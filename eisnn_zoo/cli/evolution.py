"""eisnn-zoo analyze --evolution: a recorded training run as pictures, an animation and a page."""

from __future__ import annotations

from pathlib import Path

from .output import note


def draw(run: Path, output: Path | None) -> None:
    """Writes everything into output, by default where the run keeps its record. Raises ZooError."""
    from ..analysis.evolution import read_evolution
    from ..analysis.evolution_figures import animation, whole
    from ..analysis.evolution_studies import evolution_studies
    from ..analysis.prose import EVOLUTION
    from ..analysis.report import moving, section, write_page, write_study
    from ..analysis.snapshot import FOLDER
    from ..figures import to_png
    from ..files import write_atomic

    evolution = read_evolution(run)
    folder = output or run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for study in evolution_studies(evolution):
        seen, paths = write_study(folder, study)
        sections.append(seen)
        print(*paths, sep="\n")
        note(f"{study.key}: {' '.join(study.seen)}")
    write_atomic(folder / "evolution.png", to_png(whole(evolution), dpi=120))
    print(folder / "evolution.png")
    if len(evolution.snapshots) > 1:
        gif = animation(evolution)
        write_atomic(folder / "evolution.gif", gif)
        print(folder / "evolution.gif")
        last = evolution.metrics[-1] if evolution.metrics else None
        said = f"{len(evolution.snapshots)} moments from epoch {evolution.first.epoch} to {evolution.last.epoch}" + (
            f"; {last['valid_top1']:.1f} % right after epoch {last['epoch']:.0f}." if last else ".")
        sections.insert(0, section("animation", EVOLUTION["animation"], [said], moving(gif)))
    facts = {"recorded epochs": str(len(evolution.snapshots)), "the last": str(evolution.last.epoch),
             "images": str(evolution.last.images), "time steps T": str(evolution.last.time_steps),
             "layers of neurons": str(len(evolution.layers))}
    if evolution.metrics:
        facts["validation top-1 in the end"] = f"{evolution.metrics[-1]['valid_top1']:.1f} %"
    print(write_page(folder, evolution.name, "A training run, seen from inside", facts, sections,
                     "Currents and rates on the same training images in every epoch."))
