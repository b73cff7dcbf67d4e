"""A trained model as a folder that loads anywhere: weights, settings, classes and a model card, all of them data.

``model.safetensors`` holds the weights, ``classes.json`` the names and colours of the classes, ``preprocessor.json``
how images are read and brought to the network, and ``config.json`` the rest of what inference needs of the config. JSON
cannot hold a program, as a config of Python can; what it says goes through :func:`embedded_config` all the same.
"""
import json
import os
import os.path as osp
from typing import Any, Dict, Tuple

import safetensors.torch
from torch import Tensor

from mmseg_inceptionnext.errors import CheckpointError, InputError

from .embedded_config import MAX_TEXT, PUBLISHED, to_json
from .files import write_atomically
from .safe_reading import read_checkpoint

WEIGHTS, CONFIG, PREPROCESSOR, CLASSES, CARD = (
    'model.safetensors', 'config.json', 'preprocessor.json', 'classes.json', 'README.md')
NEEDED = WEIGHTS, CONFIG, PREPROCESSOR, CLASSES


def describe_model(cfg: dict, classes: Tuple[str, ...], palette: list, version: str, fused: bool) -> Dict[str, dict]:
    """What stands in the JSON files of a folder, by their names.

    Args:
        cfg: as :func:`inference_config` gives it.
        classes, palette: name and colour of each class id.
        version: of this package.
        fused: whether the weights are those of :func:`mmseg_inceptionnext.fuse`.
    """
    model = dict(cfg['model'])
    preprocessor = dict(data_preprocessor=model.pop('data_preprocessor', None),
                        test_pipeline=cfg['test_dataloader']['dataset']['pipeline'],
                        tta_pipeline=cfg.get('tta_pipeline'))
    config = dict(library='mmseg_inceptionnext', version=version, fused=fused, model=model,
                  tta_model=cfg.get('tta_model'))
    files = {CONFIG: config, PREPROCESSOR: preprocessor, CLASSES: dict(classes=list(classes), palette=palette)}
    return {name: json.loads(to_json(content)) for name, content in files.items()}


def meta_of(files: Dict[str, dict]) -> dict:
    """The JSON files as the ``meta`` of a checkpoint, from which :func:`embedded_config` takes them."""
    config, preprocessor = files[CONFIG], files[PREPROCESSOR]
    model = dict(config['model'])
    if preprocessor.get('data_preprocessor') is not None:
        model['data_preprocessor'] = preprocessor['data_preprocessor']
    cfg = dict(model=model, test_dataloader=dict(dataset=dict(pipeline=preprocessor.get('test_pipeline'))),
               tta_model=config.get('tta_model'), tta_pipeline=preprocessor.get('tta_pipeline'))
    return {PUBLISHED: json.dumps(cfg), 'dataset_meta': files[CLASSES], 'fused': config.get('fused') is True,
            'mmseg_inceptionnext_version': config.get('version')}


def write_folder(folder: str, weights: Dict[str, Tensor], files: Dict[str, dict], card: str) -> None:
    """Writes a model folder; other files in it stay.

    Each file is written completely or not at all, ``config.json`` at last and after the one of an earlier model has
    gone: without it the folder is refused, so a model is never read with parts of another.

    Raises:
        InputError: if there is a file in the folder's place, or it cannot be written.
    """
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in weights.items()}
    contents = {WEIGHTS: safetensors.torch.save(weights, metadata=dict(format='pt')), CARD: card.encode()}
    contents.update((name, (json.dumps(files[name], indent=1) + '\n').encode())
                    for name in (CLASSES, PREPROCESSOR, CONFIG))
    try:
        os.makedirs(folder, exist_ok=True)
        if osp.lexists(osp.join(folder, CONFIG)):
            os.remove(osp.join(folder, CONFIG))
        for name, content in contents.items():
            write_atomically(content, osp.join(folder, name))
    except OSError as error:
        raise InputError(f'{folder} cannot be written: {error.strerror or error}; give another folder') from error


def read_folder(folder: str, may_link: bool = False) -> dict:
    """Reads a model folder as a checkpoint, a dict with ``state_dict`` and ``meta``; nothing else in it is opened.

    Args:
        folder: what :func:`write_folder` wrote.
        may_link: whether its files may be links to anywhere. Else these lead into the folder, or, of a folder in the
            cache of ``huggingface_hub``, to what is beside it there.

    Raises:
        CheckpointError: if a file is missing, leads elsewhere, is damaged, or is not what was written.
    """
    paths = {name: _path(folder, name, may_link) for name in NEEDED}
    files = {name: read_json(path) for name, path in paths.items() if name != WEIGHTS}
    if not isinstance(files[CONFIG].get('model'), dict):
        raise CheckpointError(f'{paths[CONFIG]} has no model: it is not of Segmenter.save_pretrained or of '
                              'tools/publish_checkpoint.py --folder, which make such a folder of a checkpoint')
    return dict(state_dict=read_checkpoint(paths[WEIGHTS])['state_dict'], meta=meta_of(files))


def _path(folder: str, name: str, may_link: bool) -> str:
    """The path of a file in a folder, if it is one."""
    path, home = osp.join(folder, name), osp.realpath(folder)
    if not osp.isfile(path):
        what = 'is no file' if osp.lexists(path) else 'is not there'
        raise CheckpointError(f'{path} {what}: a model folder holds {", ".join(NEEDED)}, as Segmenter.save_pretrained '
                              'writes them; take all of them, or give a checkpoint file')
    parent, above = osp.split(osp.dirname(home))
    homes = [home, *([osp.join(parent, 'blobs')] if above == 'snapshots' else [])]
    if not may_link and osp.dirname(osp.realpath(path)) not in homes:
        raise CheckpointError(f'{path} is a link that leads out of the folder, so it was not read; put the file itself '
                              'there')
    return path


def read_json(path: str) -> Dict[str, Any]:
    """Names and values in a JSON file; CheckpointError if it cannot be read, holds something else, or is too large."""
    try:
        with open(path, 'rb') as file:
            content = file.read(MAX_TEXT + 1)
        if len(content) > MAX_TEXT:
            raise CheckpointError(f'{path} has more than {MAX_TEXT} bytes, so it is no file of a model folder')
        value = json.loads(content)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read here: {error.strerror or error}') from error
    except (ValueError, RecursionError) as error:  # ValueError: also of text that is no UTF-8
        raise CheckpointError(f'{path} is damaged or no JSON ({type(error).__name__}: {str(error)[:160]})') from error
    if not isinstance(value, dict):
        raise CheckpointError(f'{path} holds a {type(value).__name__}, not names with their values')
    return value
