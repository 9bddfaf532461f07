"""A trained network as files that anybody can load: specification, weights, classes and card."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save

from reconstruct.images.atomic import write_atomically
from reconstruct.network.network import Network
from reconstruct.network.surgery import fold_batch_norm
from reconstruct.zoo.specification_text import specification_text


def export(net: Network, folder: Path, *, classes: list[str], card: str) -> Path:
    """Write NAME.toml, NAME.safetensors, NAME.classes.json and NAME.md; batch normalisation is folded.

    Parameters
    ----------
    folder : where the files are written; made if need be.
    classes : names of the outputs.
    card : Markdown on what the weights were trained on, how, for how long, and how well they do.

    Returns
    -------
    The specification's path, which ``load_model`` takes.
    """
    folded = fold_batch_norm(net)
    state = {key: value.cpu().contiguous() for key, value in folded.state_dict().items()}
    name = net.name
    write_atomically(folder / f"{name}.safetensors", save(state))
    write_atomically(folder / f"{name}.md", card.encode())
    write_atomically(folder / f"{name}.classes.json", (json.dumps(classes, indent=1) + "\n").encode())
    path = folder / f"{name}.toml"
    write_atomically(path, specification_text(folded.architecture, f"{name}.safetensors").encode())
    return path
