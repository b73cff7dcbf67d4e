"""Model folders on the hub of Hugging Face, by its own client, with its cache, settings and offline mode."""
import re

import huggingface_hub

from mmseg_inceptionnext.errors import CheckpointError, DownloadError, InputError

from .model_folder import CARD, NEEDED

HUB = 'hf://'
NAME = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*')


def fetch_folder(source: str) -> str:
    """The folder in the cache with the files of ``hf://USER/NAME[@REVISION]``, downloaded if they are not there yet.

    Raises:
        CheckpointError: if it is no such name.
        DownloadError: if they cannot be had, whatever the reason.
    """
    repo_id, sign, revision = source[len(HUB):].partition('@')
    if not NAME.fullmatch(repo_id) or sign and not re.fullmatch(r'[\w-][\w./-]*', revision):
        raise CheckpointError(f'{source} is no name of a model: allowed is hf://USER/NAME or hf://USER/NAME@REVISION')
    try:
        return huggingface_hub.snapshot_download(repo_id, revision=revision or None, allow_patterns=list(NEEDED))
    except Exception as error:  # the hub's client has dozens of errors: network, offline, gated, missing
        raise DownloadError(f'{source} cannot be had from the hub: {error}\nDownload {", ".join(NEEDED)} elsewhere '
                            'into a folder, and give its path') from error


def check_hub_name(repo_id: str) -> str:
    """The ``hf://`` name of ``USER/NAME``; raises InputError if that is something else."""
    if not NAME.fullmatch(repo_id):
        raise InputError(f'--push {repo_id}: allowed is USER/NAME')
    return HUB + repo_id


def push_folder(folder: str, repo_id: str) -> str:
    """Uploads a model folder to ``USER/NAME`` on the hub, which is made if it is not there; returns its address.

    Tested with a stand-in for the client only, never against the real hub.

    Raises:
        InputError: if ``repo_id`` is no such name, or the client cannot do it: nobody has logged in, or the network.
    """
    address = check_hub_name(repo_id)
    try:
        client = huggingface_hub.HfApi()
        client.create_repo(repo_id, exist_ok=True)
        client.upload_folder(repo_id=repo_id, folder_path=folder, allow_patterns=[*NEEDED, CARD],
                             commit_message='A model of mmseg_inceptionnext')
    except Exception as error:  # as above
        status = getattr(getattr(error, 'response', None), 'status_code', None)
        needs_login = status in (401, 403) or 'token' in str(error).lower()
        advice = ('Log in by the command "hf auth login", and call again' if needs_login else
                  'Call again once that is mended, as when the network is there')
        raise InputError(f'{folder} is complete, but could not be uploaded to {repo_id}: {error}\n{advice}') from error
    return address
