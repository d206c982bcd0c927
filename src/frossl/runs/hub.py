"""Repositories of models on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from frossl.core.types import UserError

PREFIX = "hf:"
"""Marks the name of a repository where a folder is possible too."""
INSTEAD = "write a folder, which can be uploaded later: --to FOLDER"


def repository_of(to: str) -> str:
    """``ORG/NAME`` of ``hf:ORG/NAME``, empty for anything else.

    Raises:
        UserError: the Hub does not allow the name, or there is no token.
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
        raise UserError(f"--to {to}: {first_line(error)}. Give {PREFIX}ORG/NAME, or the path of a folder") from None
    if "/" not in name:
        raise UserError(f"--to {to}: give {PREFIX}ORG/NAME with the user or organisation, or the path of a folder")
    if not get_token():
        raise UserError(
            f"--to {to}: there is no token for the Hugging Face Hub. Run hf auth login, or set HF_TOKEN; or {INSTEAD}"
        )
    return name


def upload(folder: Path, repository: str, replaced: Sequence[str]) -> None:
    """Creates the repository if it does not exist, and uploads ``folder`` in one commit.

    Files with a name in ``replaced`` are removed from the repository where ``folder`` has none.

    Raises:
        UserError: the Hub or the network refuses.
    """
    from huggingface_hub import HfApi

    message = "Publish an encoder of frossl"
    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, delete_patterns=list(replaced)
        )
    except Exception as error:  # its HTTP library, and so the class of the error, depends on the version
        raise UserError(
            f"{repository} could not be written on the Hugging Face Hub: {first_line(error)}. No file there was "
            f"changed. Check the name, the token and the network; or {INSTEAD}"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of a message, without a full stop, or the name of an error without one."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
