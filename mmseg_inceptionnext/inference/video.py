"""Videos, frame by frame."""
import os
import os.path as osp
import re
import shutil
from contextlib import ExitStack, closing
from typing import Dict, Iterator, Sequence, Tuple

import cv2
import numpy as np

from mmseg_inceptionnext.errors import InputError

from .inputs import STREAMED, require_file
from .outputs import ENDINGS, VIDEO_ENDINGS, ResultWriter, SegmentationResult
from .read_ahead import read_ahead
from .segmenter import Segmenter

INCOMPLETE = 'incomplete_'  # before the names of what was made of a video that is cut off
FRAME = '{:06d}'
_FRAME_FILE = re.compile(rf'\d{{6,}}({"|".join(map(re.escape, ENDINGS.values()))})')
DEFAULT_RATE = 25.  # frames a second, where a file does not say
NEARLY = 0.98  # of what is claimed


class Video:
    """The frames of a video file.

    Attributes:
        rate: frames a second; the mean, if it varies.
        frames: number of frames that the file claims to have; 0 if it does not say.
        read: number of frames that were read.
    """

    def __init__(self, path: str) -> None:
        require_file(path)
        _check_name(path)
        self.path, self._capture, self.read = path, cv2.VideoCapture(path), 0
        if not self._capture.isOpened():
            raise InputError(f'{path}: cannot be read as a video by this OpenCV')
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_RATE
        self.frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        if path.lower().endswith(STREAMED):
            self._count_frames()

    def _count_frames(self) -> None:
        """Looks through a file for the number of its frames and their mean rate, unless it ends before its duration."""
        duration, step, times = self.frames / self.rate, 1 / self.rate, []
        while self._capture.grab():
            now = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            times.append(times[-1] + step if times and now < times[-1] else now)  # MPEG gives the last frame no time
        self._capture = cv2.VideoCapture(self.path)
        length = times[-1] - times[0] if times else 0.
        if times and times[-1] + np.diff(times).max(initial=step) >= NEARLY * duration:
            self.frames = len(times)
            rate = (len(times) - 1) / length if length else self.rate
            if not NEARLY < rate / self.rate < 1 / NEARLY:  # times are rounded to milliseconds
                self.rate = rate

    def __iter__(self) -> Iterator[np.ndarray]:
        """H x W x 3, uint8, RGB each."""
        there, frame = self._capture.read()
        while there:
            self.read += 1
            yield frame[..., ::-1]
            there, frame = self._capture.read()
        self._capture.release()

    @property
    def problem(self) -> str:
        """What was wrong with its end, once it was read; empty if nothing was."""
        if not self.read:
            return f'{self.path}: holds no frame that can be read'
        if self.read >= NEARLY * self.frames:  # some formats estimate the number
            return ''
        return (f'{self.path}: {self.read} of its {self.frames} frames could be read, the file is cut off or damaged; '
                f'the results hold these, under names that begin with {INCOMPLETE}')


class VideoWriter:
    """An MPEG-4 file that is written under one path, and takes another when it is complete."""

    def __init__(self, partial: str, path: str, rate: float) -> None:
        _check_name(partial)
        self.partial, self.path, self.rate, self._writer, self._count = partial, path, rate, None, 0

    def add(self, frame: np.ndarray) -> None:
        """Takes a frame: H x W x 3, uint8, RGB; all of one size."""
        if self._writer is None:
            size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(self.partial, cv2.VideoWriter_fourcc(*'mp4v'), self.rate, size)
            if not self._writer.isOpened():
                raise InputError(f'{self.path}: this OpenCV cannot write MPEG-4 of {size[0]} x {size[1]} here')
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self._count += 1

    def close(self, mark: str) -> None:
        """Gives the file its name, with a mark before it, if it holds every frame: OpenCV does not say if it cannot."""
        if self._writer is None:
            return
        self._writer.release()
        written = cv2.VideoCapture(self.partial)
        there = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if there != self._count:
            raise InputError(f'{self.path}: {there} of {self._count} frames could be written; is the disk full?')
        os.replace(self.partial, _beside(self.path, mark))


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:  # would crash OpenCV, and the process with it
        raise InputError(f'{path}: OpenCV takes no video whose path is not UTF-8; rename it') from error


def _beside(path: str, mark: str) -> str:
    """The path with a mark before its last part."""
    return osp.join(osp.dirname(path), mark + osp.basename(path))


def segment_video(segmenter: Segmenter, video: Video, target: str, writer: ResultWriter
                  ) -> Iterator[SegmentationResult]:
    """Segments a video frame by frame, in the same memory whatever its length.

    Args:
        segmenter: the model.
        video: what is read.
        target: path of the results without ending, and the folder of those of each frame.
        writer: what is written; videos have the size and the rate of ``video`` and no legend. MPEG-4 has even sides:
            the last row or column of an odd one is left out.

    Yields:
        The result of each frame. The files take their names after the last; if it does not come to that, none is left.
        Those of a video that was cut off get others.
    """
    folder = _beside(target, '.partial.')

    def write(numbered: Tuple[int, SegmentationResult]) -> Dict[str, np.ndarray]:
        number, result = numbered
        writer.write(result, osp.join(folder, FRAME.format(number)), writer.frame_kinds)
        return {kind: writer.picture(kind, result) for kind in writer.video_kinds}

    with ExitStack() as stack:
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        films = {kind: VideoWriter(osp.join(folder, f'{kind}.mp4'), target + VIDEO_ENDINGS[kind], video.rate)
                 for kind in writer.video_kinds}
        # Closed before the folder goes: writing may be under way when it is stopped.
        frames = stack.enter_context(closing(read_ahead(write, enumerate(segmenter(iter(video))), depth=4)))
        for (_, result), pictures in frames:
            for kind, picture in pictures.items():
                films[kind].add(picture)
            yield result
        mark = INCOMPLETE if video.problem else ''
        for film in films.values():
            film.close(mark)
        if writer.frame_kinds and video.read:
            _move(folder, _beside(target, mark), writer.frame_kinds)


def _move(folder: str, final: str, kinds: Sequence[str]) -> None:
    """Puts frames in the place of older ones of the same kinds, the first frame last; those of other kinds stay."""
    check_folder(final)
    os.makedirs(final, exist_ok=True)
    for name in os.listdir(final):
        if _FRAME_FILE.fullmatch(name)[1] in [ENDINGS[kind] for kind in kinds]:
            os.remove(osp.join(final, name))
    for name in sorted(filter(_FRAME_FILE.fullmatch, os.listdir(folder)), reverse=True):
        os.replace(osp.join(folder, name), osp.join(final, name))


def check_folder(path: str) -> None:
    """Raises an InputError if the folder of frames holds anything else, or its name is taken by a file."""
    if osp.lexists(path) and not (osp.isdir(path) and all(map(_FRAME_FILE.fullmatch, os.listdir(path)))):
        raise InputError(f'{path} is there and is no folder of frames; nothing in it was touched: choose another '
                         '--out-dir')
