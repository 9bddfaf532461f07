"""Specifications of small models as files."""

from pathlib import Path

SMALL = """
input_size = 20
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
layers = [{ name = "a", filters = 4, kernel = 3, stride = 2 }, { name = "b", filters = 5, kernel = 3 }]
"""

POOLED = SMALL.replace('{ name = "b"', '{ name = "p", kind = "max_pool", kernel = 2 }, { name = "b"')

NORMED = """
input_size = 20
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
weights = "w.safetensors"
layers = [
    { name = "a", filters = 4, kernel = 3, stride = 2, batch_norm = true, activation = "crelu", dropout = 0.3 },
    { name = "p", kind = "avg_pool", kernel = 3, stride = 2, padding = 1 },
    { name = "b", filters = 5, kernel = 3, batch_norm = true },
    { name = "c", filters = 2, kernel = 1, activation = "none" },
]
"""


def write(folder: Path, name: str, text: str) -> str:
    """Write NAME.toml and return its path, as ``load_model`` takes it."""
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)
