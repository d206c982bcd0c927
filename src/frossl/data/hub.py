"""Data sets of the Hugging Face Hub, ``hf://datasets/ORG/NAME``, as folders of their files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from frossl.core.types import UserError
from frossl.data.options import Log

PREFIX = "hf://datasets/"
CONVERTED = "refs/convert/parquet"
"""Where the Hub keeps Parquet files that it made of data sets in other forms."""
KINDS = (".parquet", ".tar")


def fetch(source: str, log: Log) -> Path:
    """The folder, in the cache of huggingface_hub, with the Parquet files or else the tar shards of a data set.

    ``source`` is ``hf://datasets/ORG/NAME``, perhaps with ``@REVISION``, and then perhaps a folder of it. Where there
    are neither, those that the Hub converted are taken. Without a network, what was fetched before is used.

    Raises:
        UserError: there is no such data set, it has no such files, or the Hub cannot be reached; says what was tried.
    """
    from huggingface_hub import HfApi, snapshot_download

    parts = PurePosixPath(source.removeprefix(PREFIX)).parts
    if len(parts) < 2:
        raise UserError(f"{source}: give hf://datasets/ORG/NAME, perhaps with a folder of it behind")
    name, _, revision = parts[1].partition("@")
    repository, folder = f"{parts[0]}/{name}", "/".join(parts[2:])
    tried = []
    for branch in dict.fromkeys((revision or None, CONVERTED)):
        where, place = {"repo_id": repository, "repo_type": "dataset", "revision": branch}, branch or "its main branch"
        try:
            files = HfApi().dataset_info(repository, revision=branch, files_metadata=True).siblings or []
            files = [file for file in files if folder in ("", *map(str, PurePosixPath(file.rfilename).parents))]
            kinds = [[file for file in files if file.rfilename.endswith(kind)] for kind in KINDS]
            if not any(kinds):
                tried.append(f"{place} has no {' or '.join(KINDS)} below {folder or 'its root'}")
                continue
            chosen = next(filter(None, kinds))
            size = sum(file.size or 0 for file in chosen)
            log(f"{source}: {len(chosen):,} files of {size / 1e9:.2g} GB, fetched once to the cache of huggingface_hub")
            return Path(snapshot_download(**where, allow_patterns=[file.rfilename for file in chosen])) / folder
        except Exception as error:  # of the package it speaks with the network by, another one by its release
            tried.append(f"{place}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
        try:
            found = Path(snapshot_download(**where, local_files_only=True)) / folder
            log(f"{source}: {tried[-1]}; what was fetched before is read, which may not be all of it")
            return found
        except (OSError, ValueError):
            tried.append("nothing of it was fetched before")
    raise UserError(
        f"cannot get {source} from the Hugging Face Hub ({'; '.join(dict.fromkeys(tried))}). Check the name and the "
        "network (HF_TOKEN for private data), or get the files on another machine and give their folder"
    )
