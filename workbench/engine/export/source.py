"""Where a checkpoint comes from: a folder on this machine or a name on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workbench.engine.export.extra import import_hub
from workbench.engine.export.toml_text import toml_value
from workbench.errors import ModelError

__all__ = ["Source", "fetch_weights", "find_source", "hash_checkpoint", "is_checkpoint"]

_HUB_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")
_CONFIG: Final = ("config.json",)
_TOKENIZER: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
# By name, so that copies of the weights for other frameworks and in subfolders stay where they are.
_SAFETENSORS: Final = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
_PICKLED: Final = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Source:
    """A checkpoint's files on this machine.

    ``name`` is what the user wrote: a hub name or a path. ``revision`` is the hub's commit, None for a folder.
    ``config`` is config.json as it stands.
    """

    name: str
    folder: Path
    revision: str | None
    config: dict[str, Any]

    @property
    def toml_line(self) -> str:
        """The line of workspace.toml that names this checkpoint."""
        key = "path" if self.revision is None else "huggingface"
        return f"{key} = {toml_value(self.name)}"


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face checkpoint."""
    return (folder / "config.json").is_file()


def find_source(source: str | Path, *, revision: str | None = None) -> Source:
    """Find a checkpoint; from the hub only config.json is fetched, so that a wrong one costs no long download.

    Raises ModelError when a folder holds no checkpoint, the name is neither a folder nor of the form org/name,
    or the hub cannot be reached and its files are not in the local cache.
    """
    name, folder = str(source), Path(source).expanduser()
    if folder.is_dir():
        if not is_checkpoint(folder):
            raise ModelError(
                f"{folder} holds no config.json, so it is not a Hugging Face checkpoint. Save one there with the "
                "save_pretrained methods of the model and its tokenizer, or name another folder."
            )
        return Source(name, folder, None, _read_config(folder, name))
    if isinstance(source, Path) or not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ModelError(
            f"There is no folder {folder}. Name a folder with config.json, weights and tokenizer, or a checkpoint "
            "on the Hugging Face hub as org/name."
        )
    fetched = _fetch(name, revision, _CONFIG)
    if not is_checkpoint(fetched):
        raise ModelError(f"{name} on the Hugging Face hub has no config.json. Name another checkpoint.")
    # The cache names a snapshot's folder by its commit.
    return Source(name, fetched, fetched.name, _read_config(fetched, name))


def fetch_weights(source: Source) -> Source:
    """Fetch weights and tokenizer of a checkpoint on the hub; a folder comes back as it is.

    Safetensors are taken where there are any, else pickled weights (which are read without running what they hold).
    Raises ModelError as ``find_source`` does.
    """
    if source.revision is None:
        return source
    folder = _fetch(source.name, source.revision, (*_CONFIG, *_TOKENIZER, *_SAFETENSORS))
    if not any(folder.glob("model*.safetensors")):
        folder = _fetch(source.name, source.revision, _PICKLED)
    return Source(source.name, folder, source.revision, source.config)


def hash_checkpoint(folder: Path) -> str:
    """SHA-256, in hex, over names and contents of the files a checkpoint is read from."""
    digest = hashlib.sha256()
    wanted = (*_CONFIG, *_TOKENIZER, *_SAFETENSORS, *_PICKLED)
    for path in sorted({path for pattern in wanted for path in folder.glob(pattern)}):
        part = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                part.update(block)
        digest.update(f"{path.name}\0{part.hexdigest()}\n".encode())
    return digest.hexdigest()


def _fetch(name: str, revision: str | None, files: Sequence[str]) -> Path:
    hub = import_hub()
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the hub client's errors have no common base: HTTP, OS and value errors
        at = f" at revision {revision}" if revision else ""
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{name}{at} could not be fetched from the Hugging Face hub: {first} Check the name and the connection; "
            "or copy the checkpoint (config.json, model.safetensors, tokenizer.json) to a folder and name it in "
            'workspace.toml instead of huggingface:  path = "FOLDER"'
        ) from error


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"config.json of {name} is not JSON: {error}. Fetch or save the checkpoint again.") from None
    if not isinstance(config, dict):
        raise ModelError(f"config.json of {name} is not a JSON object. Fetch or save the checkpoint again.")
    return config
