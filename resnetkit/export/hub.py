"""A folder as the Hugging Face Hub shows it: config.json, model.safetensors, README.md."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor


def write_folder(
    folder: Path, tensors: dict[str, Tensor], card: str, config: dict[str, Any], others: dict[str, Any] | None = None
) -> None:
    """`others` are more JSON files by name."""
    folder.mkdir()
    for name, record in {"config.json": config, **(others or {})}.items():
        (folder / name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    (folder / "README.md").write_text(card, encoding="utf-8", errors="replace")


def read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and config."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return load_file(folder / "model.safetensors"), config
