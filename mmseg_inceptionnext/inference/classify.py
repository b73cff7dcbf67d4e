"""Names what images show, by a classifier's checkpoint."""
from typing import List, NamedTuple, Optional, Tuple

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image
from timm.data import ImageNetInfo, create_transform

from mmseg_inceptionnext.checkpoints import load_source
from mmseg_inceptionnext.checkpoints.compare import check_segmentor
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import InputError
from mmseg_inceptionnext.models import ImageClassifier
from mmseg_inceptionnext.models.backbones.pretrained import published_weights, recognise_arch
from mmseg_inceptionnext.parts import is_a

from .torch_backend import move

EVALUATION = dict(input_size=224, interpolation='bicubic', crop_pct=0.875)  # of the models that were trained at 224


class Guess(NamedTuple):
    """A class and its probability."""
    name: str
    probability: float


class Classifier:
    """A trained :class:`ImageClassifier` that takes images and gives their most probable classes.

    Args:
        checkpoint: file that MMEngine's runner wrote, a published one of the authors or of timm, or what else
            :func:`load_source` takes. Read as data only.
        config: config file. Default: that of InceptionNeXt in the size that the weights have, at 224 x 224.
        device: such as ``cpu`` or ``cuda:0``. Default: the best there is.

    Raises:
        CheckpointError: if the file cannot be had or read, or does not fit the config.
        InputError: if the weights are of no size of InceptionNeXt and no config is given, the config is of no
            classifier, or the device cannot be used.
    """

    def __init__(self, checkpoint: str, config: Optional[str] = None, device: Optional[str] = None) -> None:
        loaded = load_source(checkpoint)
        weights = published_weights(loaded, checkpoint)
        model_cfg, transform = _configured(config) if config else (_recognised(weights, checkpoint), EVALUATION)
        init_default_scope('mmseg')
        self.model = MODELS.build(dict(model_cfg, init_cfg=None))
        check_segmentor(self.model, weights, checkpoint)
        self.model.load_state_dict(weights)
        move(self.model, device)
        self.transform = create_transform(**transform)
        self.names = _names(loaded.classes()[0], self.model.num_classes)

    def __call__(self, path: str, topk: int = 5) -> List[Guess]:
        """The most probable classes of an image file, the best first.

        Raises:
            InputError: if it cannot be read as an image, or ``topk`` is below 1.
        """
        if topk < 1:
            raise InputError(f'--topk {topk}: allowed is a whole number from 1')
        try:
            with Image.open(path) as file:
                image = file.convert('RGB')
        except Exception as error:  # Pillow's own, and those of each format
            raise InputError(f'{path} cannot be read as an image: {error}') from error
        with torch.no_grad():
            inputs = self.transform(image)[None].to(next(self.model.parameters()).device)
            scores = self.model(inputs).float().softmax(1)[0]
        best = scores.topk(min(topk, len(scores)))
        return [Guess(self.names[i], score) for i, score in zip(best.indices.tolist(), best.values.tolist())]


def _configured(path: str) -> Tuple[dict, dict]:
    cfg = load_config(path)
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    if not is_a(cfg.get('model') or {}, MODELS, ImageClassifier) or 'transform' not in dataset:
        raise InputError(f'{path} is no config of a classifier, which has model.type ImageClassifier and '
                         'test_dataloader.dataset.transform, as those of configs/pretrain')
    return cfg.model, dataset['transform']


def _recognised(weights: dict, source: str) -> dict:
    arch, last = recognise_arch(weights), weights.get('head.fc2.bias')
    if last is None or arch in ('', 'ConvNeXt'):
        raise InputError(f'{source} holds no classifier of InceptionNeXt in a published size (found: '
                         f'{arch or "another network"}{"" if last is not None else ", no head.fc2"}): name its config '
                         'by --config, such as one of configs/pretrain. tools/infer.py takes segmentors')
    return dict(type='ImageClassifier', num_classes=len(last),
                backbone=dict(type='InceptionNeXt', arch=arch, norm_cfg=dict(type='BN')))


def _names(classes: Tuple[str, ...], count: int) -> List[str]:
    """What the classes are called; those of ImageNet by timm's table, where a checkpoint has folders' names, too."""
    info = ImageNetInfo()
    if len(classes) != count:
        classes = tuple(info.label_names()) if count == info.num_classes() else tuple(map(str, range(count)))
    known = set(info.label_names())
    return [info.label_name_to_description(name) if name in known else name for name in classes]
