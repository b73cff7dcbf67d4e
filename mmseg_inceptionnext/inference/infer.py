"""Segments files and writes the results as files."""
import os.path as osp
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy as np
from tqdm import tqdm

from .inputs import is_video, plan_outputs
from .outputs import ENDINGS, Output, find_classes, make_folder
from .read_ahead import read_ahead
from .segmenter import Outcome, SegmentationResult, Segmenter
from .video import Video, check_folder, is_segmented, segment_video, video_paths


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
        lines += [f'{100 * share:5.1f} %  {name}' for name, share in self.share.items()]
        return '\n'.join(lines)


def infer(segmenter: Segmenter, inputs: Sequence[str], out_dir: str, output: Optional[Output] = None,
          skip_existing: bool = False, listed: Iterable[str] = ()) -> Summary:
    """Segments images and videos and writes the results of each.

    Files are read and written in threads while the model runs. A file that cannot be read is reported by name and the
    rest go on. Ctrl-C ends it with what was done; no result is half written.

    Args:
        segmenter: the model; with ``probabilities`` if they are to be saved.
        inputs: see :func:`plan_outputs`.
        out_dir: folder for the results; subfolders of an input folder are kept.
        output: what is written of each image. Default: ``Output()``.
        skip_existing: leave inputs out whose results are all there.
        listed: the paths that ``-`` stands for.

    Raises:
        ValueError: before anything is written, if :func:`plan_outputs` refuses or the classes to show are unknown.
    """
    output = output or Output()
    if output.classes:
        output = replace(output, classes=find_classes(output.classes, segmenter.classes))
    targets = plan_outputs(inputs, out_dir, listed, [ENDINGS[kind] for kind in output.save], video_paths(output, ''))
    todo = [path for path, target in targets.items() if not (skip_existing and _is_done(path, target, output))]
    run = _Run(segmenter, output, {path: targets[path] for path in todo}, Summary(skipped=len(targets) - len(todo)))
    return run()


def _is_done(path: str, target: str, output: Output) -> bool:
    if is_video(path):
        return is_segmented(output, target)
    return all(map(osp.isfile, output.paths(target).values()))


class _Run:
    """One call of :func:`infer`, after its inputs were checked."""

    def __init__(self, segmenter: Segmenter, output: Output, targets: Dict[str, str], summary: Summary) -> None:
        self.segmenter, self.output, self.targets, self.summary = segmenter, output, targets, summary
        self.pixels = np.zeros(len(segmenter.classes), np.int64)

    def __call__(self) -> Summary:
        start = time.perf_counter()
        try:
            self._segment_images([path for path in self.targets if not is_video(path)])
            for path in filter(is_video, self.targets):
                self._segment_video(path)
        except KeyboardInterrupt:
            self.summary.interrupted = True
        self.summary.seconds = time.perf_counter() - start
        order = [i for i in np.argsort(-self.pixels, kind='stable') if self.pixels[i]]
        self.summary.share = {self.segmenter.classes[i]: float(self.pixels[i] / self.pixels.sum()) for i in order}
        return self.summary

    def _segment_images(self, paths: List[str]) -> None:
        outcomes = tqdm(zip(paths, self.segmenter.outcomes(paths)), desc='segmenting', unit='image', total=len(paths),
                        disable=not paths)
        for path, outcome in read_ahead(self._write, outcomes, depth=4):
            if isinstance(outcome, Exception):
                self._fail(path, outcome)
            else:
                self.summary.written.append(self.targets[path])
                self._count(outcome)

    def _write(self, path_and_outcome: Tuple[str, Outcome]) -> Tuple[str, Outcome]:
        path, outcome = path_and_outcome
        try:
            if not isinstance(outcome, Exception):
                make_folder(self.targets[path])
                self.output.write(outcome, self.targets[path])
        except OSError as error:
            return path, self._unwritable(path, error)
        return path, outcome

    def _unwritable(self, path: str, error: OSError) -> ValueError:
        return ValueError(f'{path}: its results could not be written to {self.targets[path]}*: '
                          f'{error.strerror or error}; make room there or choose another --out-dir, then '
                          '--skip-existing goes on')

    def _segment_video(self, path: str) -> None:
        try:
            video = Video(path)
            if self.targets[path] in video_paths(self.output, self.targets[path]):
                check_folder(self.targets[path])
            make_folder(self.targets[path])
            frames = segment_video(self.segmenter, video, self.targets[path], self.output)
            for result in tqdm(frames, desc=osp.basename(path), unit='frame', total=video.frames or None):
                self._count(result)
            if video.problem:
                self._fail(path, video.problem)
            else:
                self.summary.written.append(self.targets[path])
        except OSError as error:
            self._fail(path, self._unwritable(path, error))
        except (ValueError, RuntimeError) as error:
            self._fail(path, error)

    def _count(self, result: SegmentationResult) -> None:
        self.summary.images += 1
        self.pixels += np.bincount(result.mask.ravel(), minlength=len(self.pixels))

    def _fail(self, path: str, error: Union[Exception, str]) -> None:
        self.summary.failures.append(str(error) if str(error).startswith(path) else f'{path}: {error}')
        tqdm.write(self.summary.failures[-1], file=sys.stderr)
