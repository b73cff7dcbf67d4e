"""Videos, frame by frame."""
import os
import os.path as osp
import re
import shutil
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Iterator, List, Tuple

import cv2
import numpy as np
from mmengine.utils import mkdir_or_exist

from mmseg_inceptionnext.errors import InputError

from .inputs import STREAMED, require_file
from .outputs import ENDINGS, VIDEO_ENDINGS, Output
from .read_ahead import read_ahead
from .result import SegmentationResult
from .segmenter import Segmenter

INCOMPLETE = 'incomplete_'  # before the names of what was made of a video that is cut off
_FRAME = re.compile(rf'\d{{6,}}({"|".join(map(re.escape, ENDINGS.values()))})')
DEFAULT_RATE = 25.  # frames a second, where a file does not say
NEARLY = 0.98  # of what is claimed


class Video:
    """The frames of a video file.

    Attributes:
        rate: frames a second; the mean, if it varies.
        frames: number of frames that the file claims to have; 0 if it does not say.
        read: number of frames that were read.

    Raises:
        ValueError: if it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        require_file(path)
        _check_name(path)
        self.path, self._capture = path, cv2.VideoCapture(path)
        if not self._capture.isOpened():
            raise InputError(f'{path}: cannot be read as a video by this OpenCV')
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_RATE
        self.frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.read = 0
        if path.lower().endswith(STREAMED):
            self._count_frames()

    def _count_frames(self) -> None:
        """Looks through a file for the number of its frames and their mean rate, unless it ends before its duration."""
        duration, count, times, gap = self.frames / self.rate, 0, [0., 0.], 1 / self.rate  # times: first and last
        while self._capture.grab():
            now = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if now < times[1]:  # MPEG gives the last frame no time
                now = times[1] + 1 / self.rate
            gap, times = (max(gap, now - times[1]), [times[0], now]) if count else (gap, [now, now])
            count += 1
        self._capture = cv2.VideoCapture(self.path)
        first, last = times
        if last + gap >= NEARLY * duration:
            self.frames = count
            rate = (count - 1) / (last - first) if last > first else self.rate
            if not NEARLY < rate / self.rate < 1 / NEARLY:  # times are rounded to milliseconds
                self.rate = rate

    def __iter__(self) -> Iterator[np.ndarray]:
        """H x W x 3, uint8, RGB each."""
        try:
            while True:
                there, frame = self._capture.read()
                if not there:
                    break
                self.read += 1
                yield frame[..., ::-1]
        finally:
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
    """An MPEG-4 file that takes its name when it is complete."""

    def __init__(self, path: str, rate: float) -> None:
        _check_name(path)
        self.path, self.rate, self._writer, self._count = path, rate, None, 0
        self._partial = osp.join(osp.dirname(path), f'.partial.{osp.basename(path)}')

    def add(self, frame: np.ndarray) -> None:
        """Takes a frame: H x W x 3, uint8, RGB; all of one size."""
        if self._writer is None:
            size = frame.shape[1], frame.shape[0]
            writer = cv2.VideoWriter(self._partial, cv2.VideoWriter_fourcc(*'mp4v'), self.rate, size)
            if not writer.isOpened():
                raise InputError(f'{self.path}: this OpenCV cannot write MPEG-4 of {size[0]} x {size[1]} here')
            self._writer = writer
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self._count += 1

    def close(self, path: str) -> None:
        """Ends the file and gives it a name.

        Raises:
            ValueError: if it does not hold every frame: OpenCV does not tell when it cannot write.
        """
        if self._writer is None:
            return
        self._writer.release()
        written = cv2.VideoCapture(self._partial)
        there = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if there != self._count:
            raise InputError(f'{self.path}: {there} of {self._count} frames could be written; is the disk full?')
        os.replace(self._partial, path)

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, *_) -> None:
        if self._writer is not None:
            self._writer.release()
        with suppress(FileNotFoundError):
            os.remove(self._partial)


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:  # would crash OpenCV, and the process with it
        raise InputError(f'{path}: OpenCV takes no video whose path is not UTF-8; rename it') from error


def video_paths(output: Output, target: str) -> List[str]:
    """What a video becomes: pictures to look at become videos, the others a folder with files of each frame."""
    videos = [target + VIDEO_ENDINGS[kind] for kind in output.save if kind in VIDEO_ENDINGS]
    return videos + [target] * (len(videos) < len(output.save))


def _kinds_of_frames(output: Output) -> List[str]:
    """The kinds of which each frame has a file of its own."""
    return [kind for kind in output.save if kind not in VIDEO_ENDINGS]


def is_segmented(output: Output, target: str) -> bool:
    """Whether all that ``output`` asks of a video is there; of a kind of frames the first comes last, see _move."""
    videos = [path for path in video_paths(output, target) if path != target]
    frames = [osp.join(target, _frame(0) + ENDINGS[kind]) for kind in _kinds_of_frames(output)]
    return all(map(osp.isfile, videos + frames))


def _frame(number: int) -> str:
    return f'{number:06d}'


def segment_video(segmenter: Segmenter, video: Video, target: str, output: Output) -> Iterator[SegmentationResult]:
    """Segments a video frame by frame, in the same memory whatever its length.

    Args:
        segmenter: the model.
        video: what is read.
        target: path of the results, see :func:`video_paths`.
        output: what is written; videos have the size and the rate of ``video`` and no legend. MPEG-4 has even sides:
            the last row or column of an odd one is left out.

    Yields:
        The result of each frame. The files take their names after the last; if it does not come to that, none is left.
        Those of a video that was cut off get others.

    Raises:
        ValueError: if a video cannot be written, or a folder with other files is in the way.
    """
    singles = _kinds_of_frames(output)
    with ExitStack() as stack:
        writers = {kind: stack.enter_context(VideoWriter(target + VIDEO_ENDINGS[kind], video.rate))
                   for kind in output.save if kind in VIDEO_ENDINGS}
        folder = stack.enter_context(_partial_folder(target)) if singles else ''

        def encode(numbered: Tuple[int, SegmentationResult]):
            number, result = numbered
            output.write(result, osp.join(folder, _frame(number)), singles)
            return {kind: output.picture(kind, result) for kind in writers}

        numbered = enumerate(segmenter(iter(video)))
        # Closed before the folder goes: writing may be under way when it is stopped.
        for (_, result), pictures in stack.enter_context(closing(read_ahead(encode, numbered, depth=4))):
            for kind, picture in pictures.items():
                writers[kind].add(picture)
            yield result
        mark = INCOMPLETE if video.problem else ''
        for writer in writers.values():
            writer.close(osp.join(osp.dirname(writer.path), mark + osp.basename(writer.path)))
        if singles and video.read:
            _move(folder, osp.join(osp.dirname(target), mark + osp.basename(target)), singles)


def _move(folder: str, final: str, kinds: List[str]) -> None:
    """Puts frames in the place of older ones of the same kinds, the first frame last; those of other kinds stay."""
    check_folder(final)
    if not osp.isdir(final):
        os.replace(folder, final)
        return
    endings = [ENDINGS[kind] for kind in kinds]
    for name in sorted(os.listdir(final)):
        if _FRAME.fullmatch(name).group(1) in endings:
            os.remove(osp.join(final, name))
    for name in sorted(os.listdir(folder), reverse=True):
        os.replace(osp.join(folder, name), osp.join(final, name))


def check_folder(path: str) -> None:
    """Lets frames be written to a folder of frames only.

    Raises:
        ValueError: if a folder holds anything but the files of frames, or its name is taken by a file.
    """
    if osp.lexists(path) and not (osp.isdir(path) and all(map(_FRAME.fullmatch, os.listdir(path)))):
        raise InputError(f'{path} is there and is no folder of frames; nothing in it was touched: choose another '
                         '--out-dir')


@contextmanager
def _partial_folder(path: str) -> Iterator[str]:
    """A folder under another name, which is gone afterwards."""
    partial = osp.join(osp.dirname(path), f'.partial.{osp.basename(path)}')
    shutil.rmtree(partial, ignore_errors=True)
    mkdir_or_exist(partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
