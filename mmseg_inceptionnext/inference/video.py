"""Videos, frame by frame."""
import os
import os.path as osp
import shutil
from contextlib import ExitStack, contextmanager
from typing import Iterator, List, Tuple

import cv2
import numpy as np
from mmengine.utils import mkdir_or_exist

from .outputs import VIDEO_ENDINGS, Output
from .read_ahead import read_ahead
from .segmenter import SegmentationResult, Segmenter

DEFAULT_RATE = 25.  # frames a second, where a file does not say


class Video:
    """The frames of a video file.

    Attributes:
        rate: frames a second.
        frames: number of frames that the file claims to have; 0 if it does not say. Some formats estimate it.
        read: number of frames that were read.

    Raises:
        ValueError: if it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        if not osp.isfile(path):
            raise ValueError(f'{path}: no such file')
        self.path, self._capture = path, cv2.VideoCapture(path)
        if not self._capture.isOpened():
            raise ValueError(f'{path}: cannot be read as a video by this OpenCV')
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_RATE
        self.frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.read = 0

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
        if self.read and self.read >= self.frames - self.rate:
            return ''
        return (f'{self.path}: {self.read} of its {self.frames} frames could be read, the file is cut off or damaged; '
                'the results hold these')


class VideoWriter:
    """An MPEG-4 file that takes its name when it is complete."""

    def __init__(self, path: str, rate: float) -> None:
        self.path, self.rate, self._writer = path, rate, None
        self._partial = osp.join(osp.dirname(path), f'.partial.{osp.basename(path)}')

    def add(self, frame: np.ndarray) -> None:
        """Takes a frame: H x W x 3, uint8, RGB; all of one size."""
        if self._writer is None:
            size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(self._partial, cv2.VideoWriter_fourcc(*'mp4v'), self.rate, size)
            if not self._writer.isOpened():
                raise ValueError(f'{self.path}: this OpenCV cannot write MPEG-4 of {size[0]} x {size[1]} here')
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, error_type, *_) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if error_type:
            os.remove(self._partial)
        else:
            os.replace(self._partial, self.path)


def video_paths(output: Output, target: str) -> List[str]:
    """What a video becomes: pictures to look at become videos, the others a folder with files of each frame."""
    videos = [target + VIDEO_ENDINGS[kind] for kind in output.save if kind in VIDEO_ENDINGS]
    return videos + [target] * (len(videos) < len(output.save))


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

    Raises:
        ValueError: if a video of this size cannot be written.
    """
    singles = [kind for kind in output.save if kind not in VIDEO_ENDINGS]
    with ExitStack() as stack:
        writers = {kind: stack.enter_context(VideoWriter(target + VIDEO_ENDINGS[kind], video.rate))
                   for kind in output.save if kind in VIDEO_ENDINGS}
        folder = stack.enter_context(_complete_folder(target)) if singles else ''

        def encode(numbered: Tuple[int, SegmentationResult]):
            number, result = numbered
            output.write(result, osp.join(folder, f'{number:06d}'), singles)
            return result, {kind: output.picture(kind, result) for kind in writers}

        for result, pictures in read_ahead(encode, enumerate(segmenter(iter(video))), depth=4):
            for kind, picture in pictures.items():
                writers[kind].add(picture)
            yield result


@contextmanager
def _complete_folder(path: str) -> Iterator[str]:
    """A folder under another name, which takes its own when all went well; an older one is replaced."""
    partial = osp.join(osp.dirname(path), f'.partial.{osp.basename(path)}')
    shutil.rmtree(partial, ignore_errors=True)
    mkdir_or_exist(partial)
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
