"""The model card of a model folder: what is known of a model, and how it is used."""
import html
import json
import os.path as osp
from typing import Dict, List, Tuple

import torch
from torch import nn

from mmseg_inceptionnext.errors import CheckpointError

from .embedded_config import dataset_type
from .model_folder import CLASSES, CONFIG, read_json

PAGE = '''---
library_name: mmseg_inceptionnext
pipeline_tag: image-segmentation
tags:
- semantic-segmentation
---

# {title}

A model for semantic segmentation, by mmseg_inceptionnext.

| | |
|---|---|
{table}

## Use

{place}

```python
import numpy as np
from mmseg_inceptionnext import Segmenter

segmenter = Segmenter.from_pretrained({source!r})
image = np.full((256, 384, 3), 128, np.uint8)  # or a PIL image, or the path of a file
result = segmenter(image)
print(result.mask.shape, segmenter.classes[result.mask[0, 0]])  # of mask: the class of each pixel
```

## Classes

{classes}
'''


def model_card(name: str, files: Dict[str, dict], model: nn.Module, meta: dict, source: str) -> str:
    """Writes the card.

    Args:
        name: of the folder, or ``hf://USER/NAME`` of a model that is uploaded.
        files: the folder's, see :func:`describe_model`.
        model: the segmentor.
        meta: of the checkpoint, as MMEngine's runner wrote it.
        source: where the checkpoint is; the ``metrics.json`` beside it is read, if there is one.
    """
    config, classes = files[CONFIG], files[CLASSES]['classes']
    rows = [('model', _describe(config['model'])),
            ('parameters', f'{sum(x.numel() for x in model.parameters()) / 1e6:.2f} M'),
            ('form', 'fused: for prediction only' if config['fused'] else 'as trained'),
            ('classes', f'{len(classes)}'),
            ('data set', dataset_type(meta)),
            ('trained', f'{meta["iter"]} iterations' if type(meta.get('iter')) is int else ''),
            *_metrics(source),
            ('versions', f'mmseg_inceptionnext {config["version"]}, PyTorch {torch.__version__}')]
    is_on_hub = name.startswith('hf://')
    return PAGE.format(
        title=_text(name.rpartition('/')[2]), classes=_text(', '.join(classes)), source=name if is_on_hub else '.',
        table='\n'.join(f'| {key} | {_text(value)} |' for key, value in rows if value),
        place='The files are downloaded once.' if is_on_hub else 'In this folder; elsewhere, give its path.')


def _text(value: str) -> str:
    """A text that is not taken for a part of the page."""
    text = ' '.join(value.split())
    return ''.join(f'\\{sign}' if sign in '\\`*_[]|#' else sign for sign in html.escape(text, quote=False))


def _describe(model: dict) -> str:
    backbone, head = model.get('backbone') or {}, model.get('decode_head') or {}
    arch = backbone.get('arch') or ''
    parts = [model.get('type'), ' '.join(filter(None, [backbone.get('type'), arch if isinstance(arch, str) else ''])),
             head.get('type') if isinstance(head, dict) else '']
    return ', '.join(filter(None, parts))


def _metrics(source: str) -> List[Tuple[str, str]]:
    """Means and protocol of the ``metrics.json`` beside a checkpoint, if it does not name another one."""
    path = osp.join(osp.dirname(source), 'metrics.json')
    if not osp.isfile(source) or not osp.isfile(path):
        return []
    try:
        found = read_json(path)
    except CheckpointError:  # it is no file that tools/test.py wrote
        return []
    named = found.get('checkpoint')
    if isinstance(named, str) and osp.basename(named) != osp.basename(source):
        return []
    rows = [(key, f'{value:.2f} %') for key, value in found.items()
            if key.rpartition('/')[2] in ('mIoU', 'mDice', 'aAcc', 'mAcc') and isinstance(value, (int, float))]
    protocol = found.get('protocol')
    if rows and isinstance(protocol, dict):
        rows.append(('protocol', ', '.join(f'{key} {json.dumps(value)}' for key, value in protocol.items())))
    return rows
