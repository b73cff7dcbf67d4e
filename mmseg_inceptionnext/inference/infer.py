"""Segments files and writes the results as files."""
import os.path as osp
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Union

import numpy as np
from tqdm import tqdm

from mmseg_inceptionnext.checkpoints.files import make_folder
from mmseg_inceptionnext.errors import InputError, UserError

from .inputs import is_video, plan_outputs
from .outputs import ENDINGS, VIDEO_ENDINGS, ResultWriter, SegmentationResult, is_result
from .overlay import find_classes, percent
from .raster_files import is_unfinished
from .rasters import Windows, is_too_large
from .read_ahead import read_ahead
from .segmenter import Segmenter
from .video import FRAME, Video, check_folder, segment_video


@dataclass
class Summary:
    """What was done.

    Attributes:
        images: number of images and frames that were segmented.
        seconds: from the first image read to the last result written.
        skipped: number of inputs whose results were there.
        failures: a sentence for each input that failed.
        written: the results of each input that was segmented, without suffix.
        share: share of the pixels of each class, over all images, largest first.
        interrupted: whether it was stopped before its end.
    """
    images: int = 0
    seconds: float = 0.
    skipped: int = 0
    failures: List[str] = field(default_factory=list)
    written: List[str] = field(default_factory=list)
    share: Dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.images else 0.

    def as_dict(self) -> dict:
        """For JSON."""
        return dict(vars(self), images_per_second=self.images_per_second)

    def __str__(self) -> str:
        lines = [f'{self.images} image{"s" * (self.images != 1)} in {self.seconds:.1f} s, '
                 f'{self.images_per_second:.2f} images a second']
        if self.skipped:
            lines.append(f'{self.skipped} with results already there')
        lines += [f'{percent(share):>7}  {name}' for name, share in self.share.items()]
        return '\n'.join(lines)


def infer(segmenter: Segmenter, inputs: Sequence[str], out_dir: str, writer: Optional[ResultWriter] = None,
          skip_existing: bool = False, listed: Iterable[str] = (), windows: Optional[Windows] = None) -> Summary:
    """Segments images and videos and writes the results of each.

    Files are read and written in threads while the model runs. A file that cannot be read is reported by name and the
    rest go on. Ctrl-C ends it with what was done; no result is half written.

    Args:
        segmenter: the model; with ``probabilities`` if they are to be saved.
        inputs: see :func:`plan_outputs`.
        out_dir: folder for the results; subfolders of an input folder are kept.
        writer: writes the files of each image. Default: ``ResultWriter()``.
        skip_existing: leave inputs out whose results are all there.
        listed: the paths that ``-`` stands for.
        windows: if it says anything, all images are segmented window by window, see ``Segmenter.segment_file``; else
            those of more than 100 million pixels, where only class ids and an overlay are wanted.

    Raises:
        InputError: before anything is written, if :func:`plan_outputs` refuses, the classes to paint are unknown, or a
            file that is no result would be overwritten.
    """
    writer = writer or ResultWriter()
    find_classes(writer.classes or (), segmenter.classes)
    windows = windows or Windows()
    large = _large_files(segmenter, writer, windows)
    targets = plan_outputs(inputs, out_dir, listed, [ENDINGS[kind] for kind in writer.save],
                           [VIDEO_ENDINGS[kind] for kind in writer.video_kinds] + [''] * bool(writer.frame_kinds))
    large = set(filter(large, targets))
    files = {path: _files(path, target, writer, path in large) for path, target in targets.items()}
    todo = {path: target for path, target in targets.items()
            if not (skip_existing and all(map(osp.isfile, files[path])) and not is_unfinished(target + '.tif'))}
    _refuse_others(file for path in todo for file in files[path])
    segment_file = partial(segmenter.segment_file, **windows._asdict(), skip_existing=skip_existing)
    return _Run(segmenter, writer, todo, Summary(skipped=len(targets) - len(todo)), large & set(todo), segment_file)()


def _large_files(segmenter: Segmenter, writer: ResultWriter, windows: Windows) -> Callable[[str], bool]:
    """Which files are segmented window by window."""
    problem = segmenter.why_no_windows
    if not set(writer.save) <= {'index', 'overlay'} or writer.classes:
        problem = ('window by window index and overlay are written, with all classes: leave --save and --classes out, '
                   'or --window, --overlap, --bands and --scale-range')
    if windows == Windows():
        return lambda path: not problem and not is_video(path) and is_too_large(path)
    if problem:
        raise InputError(problem)
    return lambda path: not is_video(path)


def _files(path: str, target: str, writer: ResultWriter, is_large: bool) -> List[str]:
    """The results of an input; of the frames of a video those of the first, which come last."""
    if is_large:
        return [target + '.tif', target + ENDINGS['overlay']]
    files = [target + ENDINGS[kind] for kind in writer.save]
    if is_video(path):
        files = [target + VIDEO_ENDINGS[kind] for kind in writer.video_kinds]
        files += [osp.join(target, FRAME.format(0) + ENDINGS[kind]) for kind in writer.frame_kinds]
    return files


def _refuse_others(files: Iterable[str]) -> None:
    """Raises an InputError for one that is there and is no result; arrays (``.npz``) hold nothing that tells."""
    for file in files:
        if osp.isfile(file) and not file.endswith(ENDINGS['prob']) and not is_result(file, most=1 << 26):
            raise InputError(f'{file} is there, is no result of this tool, and would be overwritten; nothing was done: '
                             'choose another --out-dir, or move that file away')


class _Run:
    """One call of :func:`infer`. An image is counted where it is written, in a thread: Ctrl-C reaches the main thread
    only, so that the summary and the files agree whenever it comes."""

    def __init__(self, segmenter: Segmenter, writer: ResultWriter, targets: Dict[str, str], summary: Summary,
                 large: Set[str], segment_file: Callable) -> None:
        self.segmenter, self.writer, self.targets, self.summary = segmenter, writer, targets, summary
        self.large, self.segment_file = large, segment_file
        self.pixels, self.lock = np.zeros(len(segmenter.classes), np.int64), Lock()
        self.done: Set[str] = set()
        self.failures: Dict[str, str] = {}

    def __call__(self) -> Summary:
        start = time.perf_counter()
        try:
            self._segment_images([path for path in self.targets if not (is_video(path) or path in self.large)])
            for path in filter(self.large.__contains__, self.targets):
                with self._reporting(path):
                    self._add(self.segment_file(path, self.targets[path] + '.tif'))
            for path in filter(is_video, self.targets):
                with self._reporting(path):
                    self._segment_video(path)
        except KeyboardInterrupt:
            self.summary.interrupted = True
        self.summary.seconds = time.perf_counter() - start
        self.summary.written = [target for path, target in self.targets.items() if path in self.done]
        self.summary.failures = [self.failures[path] for path in self.targets if path in self.failures]
        order = [i for i in np.argsort(-self.pixels, kind='stable') if self.pixels[i]]
        self.summary.share = {self.segmenter.classes[i]: float(self.pixels[i] / self.pixels.sum()) for i in order}
        return self.summary

    @contextmanager
    def _reporting(self, path: str) -> Iterator[None]:
        """Notes whether an input was segmented, or why not; what is a fault of ours goes on with its traceback."""
        try:
            yield
            self.done.add(path)
        except (UserError, OSError) as error:
            text = str(error)
            if not isinstance(error, UserError):
                text = (f'its results could not be written to {self.targets[path]}*: {error.strerror or error}; make '
                        'room there or choose another --out-dir, then --skip-existing goes on')
            self.failures[path] = text if text.startswith(path) else f'{path}: {text}'
            tqdm.write(self.failures[path], file=sys.stderr)

    def _segment_images(self, paths: List[str]) -> None:
        results = tqdm(self.segmenter.outcomes(paths), desc='segmenting', unit='image', total=len(paths),
                       disable=not paths)
        with closing(read_ahead(self._write, results, depth=4)) as written:
            for _ in written:
                pass

    def _write(self, path_and_result: Tuple[str, Union[SegmentationResult, Exception]]) -> None:
        path, result = path_and_result
        with self._reporting(path):
            if isinstance(result, Exception):
                raise result
            make_folder(self.targets[path])
            self.writer.write(result, self.targets[path])
            self._count(result)

    def _segment_video(self, path: str) -> None:
        video, target = Video(path), self.targets[path]
        if self.writer.frame_kinds:
            check_folder(target)
        make_folder(target)
        with closing(segment_video(self.segmenter, video, target, self.writer)) as frames:
            for result in tqdm(frames, desc=osp.basename(path), unit='frame', total=video.frames or None):
                self._count(result)
        if video.problem:
            raise InputError(video.problem)

    def _count(self, result: SegmentationResult) -> None:
        self._add(np.bincount(result.mask.ravel(), minlength=len(self.pixels)))

    def _add(self, pixels: np.ndarray) -> None:
        with self.lock:
            self.summary.images += 1
            self.pixels += pixels
