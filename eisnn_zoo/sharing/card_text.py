"""What a model card says, section by section; see :mod:`~eisnn_zoo.sharing.card`."""

from __future__ import annotations

import math

from ..catalog import ARXIV, MODELS, PAPER, RELEASE_REPO, RELEASED, Model
from ..config import Config
from ..count import count
from ..files import to_markdown
from ..table import ONNX, WEIGHTS, Weights, list_weights

AUTHORS = "Liu, Ding and Yu"
VENUE = "ICLR 2026"
BIBTEX = f"""@inproceedings{{liu2026training,
  title     = {{{PAPER}}},
  author    = {{Liu and Ding and Yu}},
  booktitle = {{International Conference on Learning Representations (ICLR)}},
  year      = {{2026}},
  url       = {{https://arxiv.org/abs/{ARXIV}}}
}}"""

_TINY_IMAGES = ("It is a labelled subset of the 80 Million Tiny Images, which were collected from the web without asking anyone and "
                "which their authors withdrew in 2020 for offensive content; no licence of the pictures is known. ")
CAVEATS = {
    "cifar10": _TINY_IMAGES + "About 3 % of its test images have a near-duplicate among the training images (Barz and Denzler, 2020), "
               "which flatters every accuracy on it.",
    "cifar100": _TINY_IMAGES + "About 10 % of its test images have a near-duplicate among the training images (Barz and Denzler, "
                "2020), which flatters every accuracy on it.",
    "tinyimagenet200": "Its pictures are a subset of ImageNet, collected from the web; their rights lie with many owners.",
    "mnist": "Its digits were written by employees of the US Census Bureau and by high-school students; it is an easy dataset.",
    "cifar10dvs": "It was recorded from CIFAR-10 pictures moved on a screen, not from life, and has no official split.",
    "dvsgesture": "29 people, three lighting conditions, one camera.",
    "nmnist": "It was recorded from MNIST digits on a screen in front of a moving camera, not from life.",
}
VARIANTS = {"ei": "as the formula stands", "folded": "folded (what runs)", "bn": "batch-norm network with the same spikes",
            "ann": "non-spiking network of the same shape"}


def body(config: Config, row: Weights, files: set[str], spec: str) -> str:
    """The card below its metadata; see :func:`~eisnn_zoo.sharing.card.render` for the arguments."""
    facts = config.facts
    return "\n\n".join([_about(config, row, facts), _use(config, files, spec), _preprocessing(config), _accuracy(config, row, facts),
                        _training(config, facts, files), _cost(config, facts), _limits(config), _licence(config, row)])


def duration(seconds: float) -> str:
    hours = seconds / 3600
    minutes = max(1, round(seconds / 60))
    return f"{hours:.1f} hours" if hours >= 1 else f"{minutes} minute{'s' * (minutes != 1)}"


def machine(facts: dict) -> str | None:
    """What trained: "name, 2 threads"."""
    n = facts.get("threads")
    return facts.get("device") and facts["device"] + (f", {n} thread{'s' * (n != 1)}" if n else "")


def wilson(top1: float, n: int) -> tuple[float, float]:
    """Wilson's interval of an accuracy of top1 % on n images, in %, with 95 % confidence."""
    p, z = top1 / 100, 1.96
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    return scale * (middle - spread), min(100.0, scale * (middle + spread))


def _about(config: Config, row: Weights, facts: dict) -> str:
    model = config.model
    recipe, how = facts.get("recipe", ""), ""
    if recipe == model.name and model.family != "mlp":  # of its MLPs the paper gives none
        how = ", by the paper's recipe"
    elif recipe.startswith("zoo_"):
        how = ", and **not by the paper's recipe**: see Training"
    if model.kind == "ei":
        what = ("A spiking network with excitatory and inhibitory cells that obeys Dale's law: every synapse keeps its sign, and "
                "lateral inhibition, subtractive and divisive, stands where other deep networks have a normalisation layer.")
        source = "Architecture and method are those"
    elif model.spiking:
        what = "A spiking network with batch normalisation: the baseline to which the excitatory-inhibitory networks are compared."
        source = "It is a baseline"
    else:
        what = ("An ordinary network, with batch normalisation and **without spikes**, in the shape of the spiking networks of this zoo: "
                "it shows what spikes cost, and teaches networks that have them.")
        source = "It stands beside the networks"
    computed = f"with T = {config.options['time_steps']} time steps" if model.spiking else "in a single pass"
    return f"""# {model.title} for {model.dataset.title} (`{row.name}`)

{what} It reaches **{row.top1} % top-1** on {_test_set(config, facts)} {computed}.

{source} of *{PAPER}* by {AUTHORS} ({VENUE}, [arXiv {ARXIV}](https://arxiv.org/abs/{ARXIV})); the
authors' own code and weights are [{RELEASE_REPO}](https://huggingface.co/{RELEASE_REPO}). These weights were trained
with eisnn-zoo, not by the authors{how}."""


def _use(config: Config, files: set[str], spec: str) -> str:
    event, (channels, height, width) = config.event_input, config.input_size
    steps = config.time_steps
    if event:
        feed = f"frames = torch.rand(1, {steps}, {channels}, {height}, {width})  # counts of events, [B, T, C, H, W]\n" \
               "probabilities = model(frames).softmax(1)"
    else:
        feed = ("transform = create_transform(**resolve_model_data_config(model))\n"
                f"x = transform(Image.open(\"photo.png\").convert(\"{'L' if channels == 1 else 'RGB'}\")).unsqueeze(0)\n"
                "probabilities = model(x).softmax(1)")
    imports = "import torch\n" if event else "from PIL import Image\nfrom timm.data import create_transform, resolve_model_data_config\n"
    source = "recording.npz" if event else "photo.png"
    here = "In the folder that holds this model's. " if spec.startswith("local-dir:") else ""
    text = f"""## Use

{here}With timm (the `eisnn-zoo` package must be installed and imported: it tells timm of these networks):

```python
import eisnn_zoo
import timm
{imports}
model = timm.create_model("{spec}", pretrained=True).eval()
{feed}
```

In plain torch, without timm:

```python
import eisnn_zoo

model = eisnn_zoo.create_model("{spec}", pretrained=True)
```

On the command line:

```
eisnn-zoo predict {source} --model {spec}
```"""
    if ONNX in files:
        text += f"""

`{ONNX}` computes the same without torch: input `[batch, {f'{steps}, ' if event else ''}{channels}, {height}, {width}]`, float32,
output logits `[batch, {len(config.label_names)}]`.

```
eisnn-zoo predict {source} --model {ONNX}
```"""
    return text


def _preprocessing(config: Config) -> str:
    channels, height, width = config.input_size
    if config.event_input:
        text = (f"{config.options['time_steps']} frames of {channels} x {height} x {width}: each holds an equal number of events, "
                "summed by pixel and polarity. Counts go in as they are.")
    else:
        text = (f"Shorter side resized to {height} pixels (bilinear), centre crop of {height} x {width}, "
                f"{'grey' if channels == 1 else 'RGB'}, pixels scaled to [0, 1]. **No mean is subtracted and nothing divided by a "
                f"standard deviation**{': excitatory input is never negative' if config.model.kind == 'ei' else ''}.")
    labels = ", ".join(config.label_names[:20]) + (" ..." if len(config.label_names) > 20 else "")
    return f"## Preprocessing\n\n{text}\n\nClasses, in order: {labels}."


def _test_set(config: Config, facts: dict) -> str:
    """In words; how much of it was measured where that is not all."""
    dataset, n = config.model.dataset, facts.get("test_images")
    whole = f"the test set of {dataset.title}"
    return whole if n in (None, dataset.test_images) else f"{n:,} images of {whole}, which has {dataset.test_images:,},"


def _accuracy(config: Config, row: Weights, facts: dict) -> str:
    n, model = facts.get("test_images"), config.model
    lines = []
    test = f"{n:,} test images" if n else "test images"
    shown = {"best": "best epoch by validation" if facts.get("held_out", 1) else "best epoch on the test images", "last": "last epoch"}
    for key, words in shown.items():
        if f"top1_{key}" in facts:
            here = " (this file)" if facts.get("weights") == key else ""
            lines.append((words + here, test, facts[f"top1_{key}"]))
    if facts.get("weights") not in shown:
        lines.append(("this file", test, row.top1))
    if facts.get("held_out") and "valid_top1" in facts:
        lines.append(("this file's epoch, as measured in training", facts["validation"], facts["valid_top1"]))
    if model.released_top1 is not None:
        lines.append(("the authors' released checkpoint", "test images, best epoch on them", model.released_top1))
    notes = [f"The figure is that of the stored file: its {facts.get('stored_as', 'float32')} numbers loaded into a float32 network, "
             f"computed in strict float32 by the code that predicts. How it came about: {row.obtained}."]
    if n:
        low, high = wilson(row.top1, n)
        notes.append(f"One run, one seed; from {n:,} images alone the true figure lies between {low:.1f} and {high:.1f} % "
                     "(95 % confidence, Wilson).")
    trained, published = facts.get("trained_time_steps"), config.time_steps
    if trained and trained != published:
        notes.append(f"The weights were last trained with T = {trained}, and run with T = {published}.")
    if model.released_top1 is not None:
        likewise = facts.get("weights") == "best" and not facts.get("held_out", 1)
        notes.append("The authors hold out no validation split, so their figure is the best of all epochs on the test images "
                     f"themselves; ours {'was chosen in the same way' if likewise else 'and theirs are not chosen in the same way'}.")
    if "data_note" in facts:
        notes.append(f"The data: {facts['data_note']}.")
    return "\n\n".join(["## Accuracy", to_markdown(("weights", "images", "top-1 (%)"), lines), *notes])


def _training(config: Config, facts: dict, files: set[str]) -> str:
    epochs = facts.get("epochs")
    if epochs != (planned := facts.get("epochs_planned", epochs)):
        reached = facts.get("stopped_at")
        epochs = (f"{epochs} of at most {planned}: to end at {reached:g} % on the {facts['validation']}" if reached else
                  f"{epochs} of the {planned} of its recipe: the run was not finished")
    optimizer = facts.get("optimizer")
    if n := facts.get("deflate_epochs"):
        optimizer = f"{optimizer}, deflated in the first {f'{n:g} epochs' if n != 1 else 'epoch'}"

    def over_epochs(key: str, form: str = "{}") -> str | None:
        """A recipe's value, or its values by first epoch, in words."""
        value = facts.get(key)
        if not isinstance(value, dict):
            return form.format(value) if value else None
        starts = sorted((int(first), v) for first, v in value.items() if int(first) < facts.get("epochs", math.inf))
        return ", then ".join(f"{form.format(v)} from epoch {first + 1}" for first, v in starts)

    def weights(key: str) -> str | None:
        """Other weights that had a part in the training, by name and hash."""
        if key not in facts:
            return None
        digest = facts.get(f"{key}_sha256", "unknown")
        here = any(row.name == facts[key] and row.sha256 in (digest, "") for row in list_weights())
        return f"`{facts[key]}` ({'' if here else 'not in the zoo, '}sha256 {digest})"

    begun = MODELS.get(str(facts.get("started_from")).partition(".")[0], config.model)  # by name; a path says nothing of the model
    rows = {
        "recipe": f"`{facts['recipe']}`" if facts.get("recipe") else None,
        "begun from" if begun.depth == config.model.depth else "grown from": weights("started_from"), "epochs": epochs,
        "teacher": weights("teacher"),
        "teacher's part in the loss": facts.get("distillation"), "temperature of its answers": facts.get("temperature"),
        "time steps": over_epochs("time_steps", "T = {}"), "image size": over_epochs("resolution", "{0} x {0}"), "optimizer": optimizer,
        "step size": over_epochs("lr", "{:g}"), "batch size": over_epochs("batch_size"), "augmentation": over_epochs("augment"),
        "initialisation": {"standardised": "E-I Init, then each cell's current at mean 0, variance 1", "default": "torch's own"}.get(
            facts.get("init", "")),
        "homeostasis, rate": over_epochs("homeostasis", "{:g}"), "inhibitory cells' relative step": facts.get("inhibitory"),
        "W_EI, at least": over_epochs("least_inhibition", "{:g} of its initial size"),
        "schedule of the step size": facts.get("schedule"), "surrogate's slope": over_epochs("alpha"),
        "largest norm of the gradient": facts.get("clip_grad"),
        "MixUp, alpha": facts.get("mixup"), "CutMix, alpha": facts.get("cutmix"), "averaged weights, decay": facts.get("ema"),
        "weight decay": facts.get("weight_decay"), "label smoothing": facts.get("label_smoothing"),
        "seed": facts.get("seed"), "arithmetic": facts.get("precision"),
        "images trained on": f"{facts['train_images']:,}" if "train_images" in facts else None,
        "images held out for every decision": f"{facts['held_out']:,}" if "held_out" in facts else None,
        "time": duration(facts["training_seconds"]) if "training_seconds" in facts else None,
        "machine": machine(facts),
        "torch": facts.get("torch"),
    }
    text = f"## Training\n\n{to_markdown(('', ''), [row for row in rows.items() if row[1] is not None])}"
    if facts.get("recipe", "").startswith("zoo_"):
        text += f"\n\n{_whose(config.model, facts.get('optimizer'))}"
    if facts.get("remark"):
        text += f"\n\n{facts['remark']}"
    dataset = config.model.dataset
    text += f"\n\n{dataset.title}: {CAVEATS[dataset.name]}"
    kept = [f"`{name}`" for name in ("recipe.yaml", "metrics.csv", "environment.json") if name in files]
    if kept:
        text += f"\n\nThe whole record is beside this card: {', '.join(kept)}."
    if "curves.png" in files:
        text += "\n\n![Loss and accuracy by epoch](curves.png)"
    return text


def _whose(model: Model, optimizer: str | None) -> str:
    """What of a network trained by a recipe of ours is the paper's."""
    if not model.spiking:
        return "Neither the network nor the recipe is the paper's."
    ei = model.kind == "ei"
    recipe = f"a recipe of the paper, which has none for this network on {model.dataset.title}"
    if model.name.removeprefix(f"{model.kind}_") in RELEASED:
        decay = "5e-4" if ei else "1e-4"
        recipe = f"the paper's recipe, which is SGD with momentum 0.9 and weight decay {decay} over 300 epochs at the final T"
    scaling = "" if optimizer == "muon" else "the scaling of gradients, "  # without effect on steps that are relative
    same = f"Architecture, E-I Init, adaptive stabilisation, {scaling}and Dale's law are" if ei else "The network is"
    return f"This is not {recipe}. {same} the paper's."


def _cost(config: Config, facts: dict) -> str:
    counted, steps = count(config.model, config.input_size[1], **config.options), config.time_steps
    at = f" at T = {steps}" if config.model.spiking else ""
    text = (f"## Cost\n\n{counted.params:,} parameters. One inference{at} takes {counted.macs(steps) / 1e6:,.0f} million "
            "multiply-accumulates when computed densely, weights folded, as a processor does.")
    measured = facts.get("operations")
    if not isinstance(measured, dict) or not measured:
        return text
    kinds = ("macs", "acs", "multiplications", "additions", "divisions")
    head = ("computation", "multiply-accumulates", "accumulates", *kinds[2:], "energy (µJ)")
    names = VARIANTS if config.model.kind == "ei" else {**VARIANTS, "bn": "this network"}
    lines = [(names.get(variant, variant), *(f"{ops.get(kind, 0) / 1e6:,.2f}" for kind in kinds), f"{ops.get('microjoules', 0):,.0f}")
             for variant, ops in measured.items()]
    return text + ("\n\nHardware that computes only where a spike arrives would do, in millions of operations an image (mean over "
                   f"{facts.get('operations_images', 'some')} test images; energy by published figures for single float32 "
                   "operations at 45 nm, memory traffic not counted):\n\n"
                   + to_markdown(head, lines))


def _limits(config: Config) -> str:
    height, classes = config.input_size[1], len(config.label_names)
    lines = [
        f"It knows {classes} classes and gives every input one of them; its probabilities are not calibrated, and it was tested on nothing "
        f"but the test set of {config.model.dataset.title}.",
        *([] if config.event_input else
          [f"Images are seen at {height} x {height} pixels; large pictures lose most of their detail."]),
        *([f"T = {config.options['time_steps']} is part of the model: other numbers of time steps run, with another accuracy.",
           "A spike is a threshold, so rounding flips some: TF32, half precision or another order of summation changes logits slightly. "
           "The accuracy above is for float32."] if config.model.spiking else []),
        "It is meant for research on spiking networks, not for decisions about people or safety.",
    ]
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)


def _licence(config: Config, row: Weights) -> str:
    return f"""## Licence

{row.license} for these files. It does not extend to {config.model.dataset.title} itself, whose terms, if any, are its owners'.

`{WEIGHTS}`: {row.size:,} bytes, sha256 `{row.sha256}`.

## Citation

The method is the authors' work; please cite them:

```bibtex
{BIBTEX}
```"""
