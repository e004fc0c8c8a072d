"""Send folders to the hub, as repositories of the account whose token is there."""

from __future__ import annotations

from bench.errors import InputError, one_line
from bench.export.publish import Repository


def token() -> str:
    """Return the hub's token from HF_TOKEN, or from what `hf auth login` keeps.

    Raises:
        InputError: there is none, or the hub is switched off.
    """
    from huggingface_hub import constants, get_token

    found = get_token()
    if not found:
        raise InputError(
            "--push needs a token that may write: set HF_TOKEN, or 'hf auth login'; the folders can be looked at without --push"
        )
    if constants.HF_HUB_OFFLINE:
        raise InputError("--push: HF_HUB_OFFLINE is set, so that the hub is not asked; unset it")
    return found


def push(repository: Repository, with_token: str, *, public: bool) -> str:
    """Make the repository where it is not there yet, and put the folder's files into it in one commit; return its address.

    Raises:
        InputError: the hub refuses, or cannot be reached; the folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    api = HfApi(token=with_token)
    try:
        made = api.create_repo(repository.name, repo_type=repository.kind, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository.name,
            repo_type=repository.kind,
            folder_path=repository.folder,
            commit_message=f"Publish {repository.says}"[:100],
        )
    except Exception as error:  # of many classes: no right to write, no such organization, a broken connection
        lines = str(error).replace(with_token, "…").strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{repository.name}: the hub did not take {repository.folder}: {one_line(lines[0], 300)}"
        ) from None
    return str(made)
