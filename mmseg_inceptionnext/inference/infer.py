"""Segments image files and folders and writes the results as files."""
import os
import os.path as osp
from typing import Dict, List, Sequence, Tuple

from mmengine.utils import mkdir_or_exist
from PIL import Image
from tqdm import tqdm

from mmseg_inceptionnext.datasets.files import IMAGE_SUFFIXES

from .segmenter import Segmenter


def infer(segmenter: Segmenter, inputs: Sequence[str], out_dir: str, opacity: float = 0.5
          ) -> Tuple[List[str], List[str]]:
    """Segments images and writes ``NAME.png`` (class ids) and ``NAME_overlay.jpg`` for each.

    A file that cannot be read is reported by name and the rest go on.

    Args:
        segmenter: the model.
        inputs: image files, and folders, which are searched through.
        out_dir: folder for the results; subfolders of an input folder are kept.
        opacity: of the classes painted over the image, from 0 to 1.

    Returns:
        The overlays written, and one sentence for each input that failed.

    Raises:
        ValueError: before anything is written, if ``opacity`` is out of range or :func:`plan_outputs` refuses.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f'--opacity {opacity}: allowed is 0 (only the image) to 1 (only the classes)')
    targets = plan_outputs(inputs, out_dir)
    written, failures = [], []
    for path, target in tqdm(targets.items(), desc='segmenting', unit='image'):
        try:
            result = segmenter(path)
        except (ValueError, RuntimeError) as error:  # RuntimeError: out of memory
            failures.append(str(error) if str(error).startswith(path) else f'{path}: {error}')
            tqdm.write(failures[-1])
            continue
        mkdir_or_exist(osp.dirname(target) or '.')
        Image.fromarray(result.mask).save(f'{target}.png')
        result.overlay(opacity).save(f'{target}_overlay.jpg', quality=92)
        written.append(f'{target}_overlay.jpg')
    return written, failures


def plan_outputs(inputs: Sequence[str], out_dir: str) -> Dict[str, str]:
    """Maps each image to the path of its results, without suffix, so that no file is lost.

    Raises:
        ValueError: if a folder holds no image, or if results would overwrite each other or stand beside the inputs,
            where they could overwrite an image or its labels.
    """
    targets: Dict[str, str] = {}
    for source in inputs:
        root = source if osp.isdir(source) else osp.dirname(source)
        paths = _images_in(source, out_dir) if osp.isdir(source) else [source]
        if not paths:
            raise ValueError(f'no image in {source}; files that end in {" ".join(IMAGE_SUFFIXES)} are taken')
        for path in paths:
            targets[path] = osp.join(out_dir, osp.splitext(osp.relpath(path, root or '.'))[0])
    input_folders = {osp.realpath(osp.dirname(path)) for path in targets}
    taken: Dict[str, str] = {}
    for path, target in targets.items():
        if osp.realpath(osp.dirname(target)) in input_folders:
            raise ValueError(f'the result of {path} would be written beside the input images and could overwrite '
                             'one of their files; nothing was done: choose another --out-dir')
        if target in taken:
            raise ValueError(f'{path} and {taken[target]} would both be written to {target}.png; nothing was done: '
                             'choose another --out-dir for one of them or rename it')
        taken[target] = path
    return targets


def _images_in(folder: str, out_dir: str) -> List[str]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if osp.realpath(osp.join(root, name)) != osp.realpath(out_dir))
        found += [osp.join(root, name) for name in sorted(names) if name.lower().endswith(IMAGE_SUFFIXES)]
    return found
