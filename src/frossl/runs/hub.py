"""Repositories of models on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from frossl.core.types import UserError

PREFIX = "hf:"
"""Begins the name of a repository where a folder may be named too."""
INSTEAD = "write a folder, which can be uploaded later: --to FOLDER"


def repository_of(to: str) -> str:
    """``ORG/NAME`` of ``hf:ORG/NAME``, empty for anything else.

    Raises:
        UserError: it is no name that the Hub has, or there is no token for it.
    """
    if not to.startswith(PREFIX):
        return ""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = to.removeprefix(PREFIX)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--to {to}: {_first_line(error)} Give {PREFIX}ORG/NAME, or the path of a folder") from None
    if "/" not in name:
        raise UserError(f"--to {to}: give {PREFIX}ORG/NAME with the user or organisation, or the path of a folder")
    if not get_token():
        raise UserError(
            f"--to {to}: there is no token for the Hugging Face Hub. Run hf auth login, or set HF_TOKEN; or {INSTEAD}"
        )
    return name


def upload(folder: Path, repository: str, replaced: Sequence[str]) -> None:
    """Makes the repository if there is none and uploads ``folder`` in one commit.

    Files of the names ``replaced`` that the repository has and ``folder`` has not are removed from it.

    Raises:
        UserError: the Hub or the network says no.
    """
    from huggingface_hub import HfApi

    how = {"commit_message": "Publish an encoder of frossl", "delete_patterns": list(replaced)}
    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, **how)
    except Exception as error:  # of the package it speaks with the network by, another one by its release
        raise UserError(
            f"{repository} could not be written on the Hugging Face Hub: {_first_line(error)} No file there was "
            f"changed. Check the name, the token and the network; or {INSTEAD}"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."
