"""What the steps of a pipeline do: those that load the image, and those that load the label."""
import copy
import inspect
import os.path as osp
import tempfile
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Tuple

import cv2
import mmcv.transforms as mmcv_steps
import mmseg.datasets.transforms as mmseg_steps
import numpy as np
from mmcv.transforms import LoadAnnotations
from mmseg.datasets.transforms import LoadBiomedicalAnnotation, PackSegInputs
from mmseg.registry import TRANSFORMS

from mmseg_inceptionnext.errors import ConfigError, SampleError
from mmseg_inceptionnext.parts import class_of

LIBRARIES = ('mmengine', 'mmcv', 'mmseg', 'mmseg_inceptionnext')
LABEL_LOADERS = (LoadAnnotations, LoadBiomedicalAnnotation)  # of these libraries, and what is derived from them
MOVING = (  # steps that change the label with the image
    *(getattr(mmcv_steps, name) for name in ('CenterCrop', 'Pad', 'RandomChoiceResize', 'RandomFlip', 'RandomResize',
                                             'Resize')),
    *(getattr(mmseg_steps, name) for name in (
        'BioMedical3DPad', 'BioMedical3DRandomCrop', 'BioMedical3DRandomFlip', 'RandomCrop', 'RandomCutOut',
        'RandomRotate', 'RandomRotFlip', 'ResizeShortestEdge', 'ResizeToMultiple')))
OF_LABELS = ('seg_map_path', 'seg_fields', 'label_map', 'reduce_zero_label')  # what data sets say of a label


def loads_labels(step: Any) -> bool:
    """Whether a step loads a label, or changes nothing but one, so that an image without a label must not meet it.

    That is found by what it does: a step of somebody else's is tried on a small picture.

    Args:
        step: of a pipeline, built or as a config has it.

    Raises:
        ConfigError: if it loads the image, too, and cannot do so without a label.
    """
    kind = class_of(step, TRANSFORMS) if isinstance(step, dict) else type(step)
    if not isinstance(kind, type) or issubclass(kind, LABEL_LOADERS):
        return isinstance(kind, type)
    if is_of_libraries(kind) or not _needs_or_makes_a_label(step):
        return False
    if _makes_an_image(step):
        raise ConfigError(f'{kind.__name__} of the pipeline loads both the image and the label, and there may be '
                          'images without one: split it into two steps, one for img and one for gt_seg_map')
    return True


def is_of_libraries(kind: type) -> bool:
    """Whether a class is one of MMEngine, MMCV, MMSegmentation or this package."""
    return kind.__module__.partition('.')[0] in LIBRARIES


def never_packs(pipeline: Any) -> bool:
    """Whether no step of a pipeline, as a config has it, makes an input of the network; steps of one's own may."""
    if isinstance(pipeline, (list, tuple)):
        return all(map(never_packs, pipeline))
    if not isinstance(pipeline, dict):
        return False
    kind = class_of(pipeline, TRANSFORMS)
    return (isinstance(kind, type) and is_of_libraries(kind) and not issubclass(kind, PackSegInputs)
            and never_packs(pipeline.get('transforms') or []))


def flat(pipeline: Any) -> Iterator[Any]:
    """The steps of a built pipeline, also those inside others; of the views of ``TestTimeAug`` the first."""
    if isinstance(pipeline, (list, tuple)):
        for step in pipeline:
            yield from flat(step)
        return
    inner = getattr(pipeline, 'transforms', getattr(pipeline, 'subroutines', [])[:1] or None)
    if inner is not None and is_of_libraries(type(pipeline)):
        yield from flat(inner)
    elif callable(pipeline):
        yield pipeline


def loading_steps(pipeline: Any) -> Tuple[Optional[Any], List[Any]]:
    """The step of a built pipeline that loads the image, None if there is none, and those for the label.

    Where one of these is somebody else's, other such steps before it count, too: it may need what they say.
    """
    steps = list(flat(pipeline))
    labels = [step for step in steps if loads_labels(step)]
    image = next((step for step in steps if step not in labels), None)
    if not all(is_of_libraries(type(step)) for step in labels):
        last = steps.index(labels[-1])
        labels = [step for i, step in enumerate(steps) if step in labels or (
            i < last and step is not image and not is_of_libraries(type(step)))]
    return image, labels


def run(steps: List[Any], results: dict) -> dict:
    """Takes a sample through some steps.

    Raises:
        ValueError: if a step has an error of any kind; the message names the step.
    """
    for step in steps:
        name = type(step).__name__
        try:
            results = step(results)
        except SampleError:  # which is a ValueError
            raise
        except Exception as error:  # a step of somebody else's
            raise ValueError(f'{name} ends with {type(error).__name__}: {error}') from error
        if results is None:
            raise ValueError(f'{name} gives nothing for it')
    return results


@contextmanager
def _drawn() -> Iterator[dict]:
    """A sample of a small picture in a file."""
    picture = (np.arange(64 * 64 * 3) % 251).astype(np.uint8).reshape(64, 64, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, 'drawn.png')
        cv2.imwrite(path, picture)
        yield dict(img_path=path, img=picture, img_shape=(64, 64), ori_shape=(64, 64), num_classes=2, ignore_index=255)


def _makes_an_image(step: Any) -> bool:
    with _drawn() as sample:
        del sample['img']
        sample.update(seg_map_path=sample['img_path'], seg_fields=[], label_map=None, reduce_zero_label=False)
        try:
            return 'img' in (TRANSFORMS.build(step) if isinstance(step, dict) else step)(sample)
        except Exception:  # it takes an image that is loaded
            return False


def _needs_or_makes_a_label(step: Any) -> bool:
    with _drawn() as sample:
        path, picture = sample['img_path'], sample['img']
        try:
            step = TRANSFORMS.build(step) if isinstance(step, dict) else step
            return 'gt_seg_map' in step(copy.deepcopy(sample))
        except KeyError as error:
            missing = error.args[0] if error.args else None
        except FileNotFoundError:  # it may make the path of the label from that of the image
            return 'gt_seg_map' in _source(step)
        except Exception:  # it may have asked for the path of the label in another way, or want another picture
            return 'seg_map_path' in _source(step)
        if missing != 'gt_seg_map':
            return missing in OF_LABELS
        sample.update(gt_seg_map=np.eye(64, dtype=np.uint8), seg_fields=['gt_seg_map'], label_map=None,
                      reduce_zero_label=False, seg_map_path=path)
        try:
            return np.array_equal(step(copy.deepcopy(sample))['img'], picture)  # else images need it, too
        except Exception:  # which whoever uses it sees
            return False


def _source(step: Any) -> str:
    try:
        return inspect.getsource(step if isinstance(step, type) else type(step))
    except (OSError, TypeError):  # there is no file of it
        return ''
