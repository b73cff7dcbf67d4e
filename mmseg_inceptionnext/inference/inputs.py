"""Which files are segmented, and where the results of each go."""
import glob
import os
import os.path as osp
import re
import sys
from typing import Collection, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from mmseg_inceptionnext.datasets.files import IMAGE_SUFFIXES
from mmseg_inceptionnext.errors import InputError

from .outputs import is_result

INDEXED = ('.mp4', '.m4v', '.mov', '.3gp', '.avi')  # videos that hold the number of their frames
STREAMED = ('.mkv', '.webm', '.mpg', '.mpeg', '.ts', '.mts', '.m2ts', '.wmv', '.flv')  # and those that do not
VIDEO_SUFFIXES = INDEXED + STREAMED


def plan_outputs(inputs: Sequence[str], out_dir: str, listed: Iterable[str] = (), endings: Collection[str] = ('.png', ),
                 video_endings: Collection[str] = ('', )) -> Dict[str, str]:
    """Maps each image and video to the path of its results, without suffix, so that no file is lost.

    Args:
        inputs: files; folders, which are searched through; patterns such as ``photos/**/*.jpg``; and ``-`` for what
            is ``listed``. Subfolders of a folder, and those under the fixed part of a pattern, are kept. Of folders and
            patterns what an earlier run wrote is left out, and standard error says so.
        out_dir: folder for the results.
        listed: lines with a path each; subfolders of the folder that holds all of them are kept.
        endings: what is added to the path of the results, such as ``.png`` and ``_overlay.jpg``.
        video_endings: the same for videos; empty for the folder of their frames.

    Raises:
        InputError: if there is nothing to do for an input, if ``out_dir`` is a file, or if results would overwrite
            each other or stand beside the inputs, where they could overwrite an image or its labels.
    """
    if osp.exists(out_dir) and not osp.isdir(out_dir):
        raise InputError(f'--out-dir {out_dir} is a file; give a folder')
    targets: Dict[str, str] = {}
    seen: Set[str] = set()
    for source in inputs:
        root, paths = _listed(listed) if source == '-' else _search(source, out_dir)
        for path in paths:
            if osp.abspath(path) not in seen:  # else it is named twice
                seen.add(osp.abspath(path))
                targets[path] = osp.join(out_dir, osp.splitext(osp.relpath(path, root or '.'))[0])
    _check(targets, endings, video_endings)
    return targets


def _check(targets: Dict[str, str], endings: Collection[str], video_endings: Collection[str]) -> None:
    """Raises the errors of :func:`plan_outputs` about results that meet each other, or the inputs."""
    input_folders = {osp.realpath(osp.dirname(path)) for path in targets}
    taken: Dict[str, str] = {}
    for path, target in targets.items():
        if osp.realpath(osp.dirname(target)) in input_folders:
            raise InputError(f'the result of {path} would be written beside the input images and could overwrite '
                             'one of their files; nothing was done: choose another --out-dir')
        for file in (target + ending for ending in (video_endings if is_video(path) else endings)):
            if file in taken:
                raise InputError(f'{path} and {taken[file]} would both be written to {file}; nothing was done: '
                                 'choose another --out-dir for one of them or rename it')
            taken[file] = path
    for folder, path in taken.items():
        if is_video(path) and folder == targets[path]:  # of its frames
            for other in [*input_folders, *(file for file in taken if file != folder)]:
                if osp.join(osp.realpath(other), '').startswith(osp.join(osp.realpath(folder), '')):
                    raise InputError(f'the frames of {path} would be written to the folder {folder}, where {other} is '
                                     'or will be; nothing was done: choose another --out-dir or rename the video')


def list_images(inputs: Iterable[str]) -> List[str]:
    """The image files that files, folders and patterns name; an InputError if one of them names none."""
    images = []
    for source in inputs:
        found = [path for path in _search(source)[1] if not is_video(path)]
        if not found:
            raise InputError(f'{source}: no image, only videos; files that end in {" ".join(IMAGE_SUFFIXES)} are taken')
        images += found
    return images


def is_video(path: str) -> bool:
    return path.lower().endswith(VIDEO_SUFFIXES)


def require_file(path: str) -> None:
    """Raises an InputError if a path is no regular file: a pipe would be waited for without end."""
    if not osp.isfile(path):
        what = 'is a folder' if osp.isdir(path) else 'is no file, but a pipe, a socket or a device'
        raise InputError(f'{path}: {what if osp.exists(path) else "no such file"}')


def _search(source: str, out_dir: Optional[str] = None) -> Tuple[str, List[str]]:
    """The folder that results are relative to, and the files; what is in ``out_dir`` only if that is asked for."""
    results = out_dir and osp.join(osp.realpath(out_dir), '')
    if osp.isdir(source):
        root, found = source, [osp.join(folder, name) for folder, _, names in os.walk(source) for name in names]
        if results and osp.join(osp.realpath(source), '').startswith(results):
            results = None
    elif osp.exists(source) or not glob.has_magic(source):
        return osp.dirname(source), [source]
    else:
        root = osp.dirname(source[:min(source.find(sign) for sign in '*?[' if sign in source)])
        found = filter(osp.isfile, _matching(source))
    found = sorted(path for path in found if path.lower().endswith(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
                   and not (results and osp.realpath(path).startswith(results)))
    ours = set(filter(is_result, found))
    if ours:
        print(f'{source}: {len(ours)} results of an earlier run are left out, such as {min(ours)}; to segment them, '
              'name the files themselves', file=sys.stderr)
    paths = [path for path in found if path not in ours]
    if not paths:
        raise InputError(f'no image or video in {source}; files that end in '
                         f'{" ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)} are taken')
    return root, paths


def _matching(pattern: str) -> Set[str]:
    """The paths that a pattern names. ``**`` follows no links, of which two can circulate without end."""
    before, *after = re.split(r'(?<![^/])\*\*(?:/|$)', pattern, maxsplit=1)
    if not after:
        return set(glob.glob(pattern))
    found: Set[str] = set()
    for top in glob.glob(before or '.'):
        for folder, folders, _ in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith('.')]
            found |= _matching(osp.join(glob.escape(folder), after[0] or '*'))
    return found


def _listed(lines: Iterable[str]) -> Tuple[str, List[str]]:
    paths = [line.rstrip('\r\n') for line in lines if line.strip()]
    if not paths:
        raise InputError('standard input, which - reads, names no file; one path a line is expected')
    return osp.commonpath([osp.dirname(osp.abspath(path)) for path in paths]), paths
