"""The model card: a published model's README.md, made from its configuration and its row in the table of weights.

Everything in it is taken from there or from the catalog, so a card can be made again at any time and says nothing that the
files do not. Imports neither torch nor timm.
"""

from __future__ import annotations

from pathlib import Path

from ..catalog import ARXIV
from ..config import Config, read_config
from ..errors import ZooError
from ..files import write_atomic
from ..table import Weights, hub_folder
from .card_text import body

KIND_TAGS = {"ei": ["excitatory-inhibitory", "lateral-inhibition"], "bn": ["batch-normalization"], "ann": ["batch-normalization"]}
SPIKING_TAGS = ["snn", "spiking-neural-network"]
HUB_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100", "mnist": "ylecun/mnist",
                "tinyimagenet200": "zh-plus/tiny-imagenet"}


def render(config: Config, row: Weights, files: set[str], spec: str = "") -> str:
    """The card's text, with the metadata that the Hub reads.

    Args:
        files: names of the files beside it, which decide on what it speaks of.
        spec: what loads it, as :func:`~eisnn_zoo.locating.locate` takes it; "" for weights of the zoo, which are loaded by name.
    """
    from huggingface_hub import ModelCard, ModelCardData

    model = config.model
    tags = ["timm-compatible", *(SPIKING_TAGS if model.spiking else []), *KIND_TAGS[model.kind], "image-classification", f"arxiv:{ARXIV}"]
    data = ModelCardData(
        license=row.license.lower(), library_name="eisnn-zoo", pipeline_tag="image-classification", tags=tags,
        datasets=[HUB_DATASETS[d]] if (d := model.dataset.name) in HUB_DATASETS else None, metrics=["accuracy"],
        model_name=row.name, eval_results=_results(config, row))
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body(config, row, files, spec or row.name)}\n"))


def write(folder: Path, config: Config, row: Weights) -> None:
    """README.md, and the accuracy as the Hub's evaluation file where it knows the dataset."""
    dataset = config.model.dataset.name
    if dataset in HUB_DATASETS:
        (folder / ".eval_results").mkdir(exist_ok=True)
        write_atomic(folder / ".eval_results" / f"{dataset}.yaml", _evaluation(config, row))
    write_atomic(folder / "README.md", of_folder(folder, row))


def check(text: str) -> None:
    """Whether the Hub would take this card, as far as can be told offline. Raises ZooError."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(text).data
    except Exception as error:  # YAML's errors, and the client's own of several types
        raise ZooError(f"the model card is not valid: {' '.join(str(error).split())}") from error
    missing = [key for key in ("license", "library_name", "tags", "eval_results") if not data.get(key)]
    if missing:
        raise ZooError(f"the model card's metadata lack {', '.join(missing)}: write it again with `eisnn-zoo card`")


def of_folder(folder: Path, row: Weights, repo: str = "") -> str:
    """The card of a packed model's folder. Raises ZooError where its configuration cannot be read.

    Args:
        repo: where on the Hub it is to lie, "organisation/name"; "" for a copy that stays here.
    """
    own = folder.resolve().parent == hub_folder().resolve()
    spec = f"hf-hub:{repo}" if repo else row.name if own else f"local-dir:{row.folder}"
    return render(read_config(folder / "config.json"), row, {p.name for p in folder.iterdir()}, spec)


def _results(config: Config, row: Weights) -> list:
    from huggingface_hub import EvalResult

    dataset = config.model.dataset
    return [EvalResult(task_type="image-classification", dataset_type=HUB_DATASETS.get(dataset.name, dataset.name),
                       dataset_name=dataset.title, dataset_split="test", metric_type="accuracy", metric_value=row.top1,
                       metric_name="top-1 accuracy (%)")]


def _evaluation(config: Config, row: Weights) -> str:
    import yaml

    entry = {"dataset": {"id": HUB_DATASETS[config.model.dataset.name], "task_id": "image_classification"}, "value": row.top1,
             "notes": f"top-1 accuracy in %; {row.obtained}"}
    return yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)
