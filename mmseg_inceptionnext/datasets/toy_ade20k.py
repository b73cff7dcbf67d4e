"""Draws street scenes with labels, in the layout and the label convention of ADE20K."""
import os
import os.path as osp
from typing import Iterator, List, Sequence, Tuple

import cv2
import numpy as np
from mmseg.datasets import ADE20KDataset
from tqdm import tqdm

from mmseg_inceptionnext.errors import InputError

CLASSES = ('sky', 'mountain', 'building', 'grass', 'sidewalk', 'road', 'tree', 'fence', 'streetlight', 'signboard',
           'car', 'person', 'water')
OTHER = 0  # ADE20K's label for what is none of its 150 classes; training ignores it
JPEG_QUALITY = 92

Color = Tuple[int, int, int]  # red, green, blue
Point = Tuple[float, float]  # x, y


def make_toy_ade20k(out: str, num_train: int = 200, num_val: int = 40, seed: int = 0) -> None:
    """Writes a small drawn dataset: ``images/{training,validation}/*.jpg``, ``annotations/.../*.png``.

    Each annotation is a single-channel PNG of the image's size: 0 other, 1 to 150 the classes of ADE20K, of which
    :data:`CLASSES` occur. The same seed gives the same bytes, and every scene has its own stream, so the first n are
    the same for every count.

    Raises:
        ValueError: if a count is negative.
    """
    if num_train < 0 or num_val < 0:
        raise InputError(f'num_train={num_train}, num_val={num_val}: counts of scenes cannot be negative')
    for split_index, (split, count) in enumerate((('training', num_train), ('validation', num_val))):
        image_dir, label_dir = (osp.join(out, kind, split) for kind in ('images', 'annotations'))
        os.makedirs(image_dir, exist_ok=True)
        os.makedirs(label_dir, exist_ok=True)
        for i in tqdm(range(count), desc=split, unit='scene'):
            image, label = draw_scene(np.random.default_rng((seed, split_index, i)))
            name = f'toy_{split}_{i:05d}'
            jpeg = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            jpeg.tofile(osp.join(image_dir, f'{name}.jpg'))
            cv2.imencode('.png', label)[1].tofile(osp.join(label_dir, f'{name}.png'))


def make_toy_crops(root: str, out: str, side: int = 64, count: int = 3, seed: int = 0) -> None:
    """Cuts windows out of drawn scenes, to train a classifier on: ``{train,val}/CLASS/*.png``.

    From each scene come ``count`` windows around random pixels of each class in it. A window is of the class that is
    the commonest in it. Classes that are not in both splits are left out. The same seed gives the same bytes.

    Args:
        root: folder that :func:`make_toy_ade20k` wrote.
        out: folder to write to.
        side: of a window, in pixels.
        count: windows for each class of a scene.
        seed: of the places.
    """
    splits = {name: list(_windows(root, split, side, count, seed))
              for name, split in (('train', 'training'), ('val', 'validation'))}
    kept = set.intersection(*({name for name, *_ in windows} for windows in splits.values()))
    for split, windows in splits.items():
        for name, file_name, window in windows:
            if name in kept:
                os.makedirs(osp.join(out, split, name), exist_ok=True)
                cv2.imencode('.png', window)[1].tofile(osp.join(out, split, name, file_name))


def _windows(root: str, split: str, side: int, count: int, seed: int) -> Iterator[Tuple[str, str, np.ndarray]]:
    """Class, file name and pixels of each window."""
    folder = osp.join(root, 'annotations', split)
    for scene, file in enumerate(tqdm(sorted(os.listdir(folder)), desc=f'windows of {split}', unit='scene')):
        rng, stem = np.random.default_rng((seed, scene)), osp.splitext(file)[0]
        label = cv2.imread(osp.join(folder, file), cv2.IMREAD_UNCHANGED)
        image = cv2.imread(osp.join(root, 'images', split, f'{stem}.jpg'))
        for value in sorted(set(label.flat) - {OTHER}):
            places = rng.permutation(np.argwhere(label == value))[:count]
            for number, (y, x) in enumerate(places):
                top, left = (int(np.clip(at - side // 2, 0, size - side)) for at, size in zip((y, x), label.shape))
                window = slice(top, top + side), slice(left, left + side)
                commonest = int(np.bincount(label[window].ravel()).argmax())
                if commonest != OTHER:
                    yield (ADE20KDataset.METAINFO['classes'][commonest - 1], f'{stem}_{value}_{number}.png',
                           image[window])


def draw_scene(rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """Draws one scene, far things first.

    Returns:
        The image (H x W x 3, uint8, RGB) and its label (H x W, uint8, 0 other, else ADE20K's class plus one).
    """
    scene = Scene(rng)
    scene.backdrop()
    for draw, at_most in ((scene.building, 4), (scene.tree, 4), (scene.fence, 1), (scene.streetlight, 2),
                          (scene.signboard, 2), (scene.car, 3), (scene.person, 4), (scene.barrel, 1)):
        for _ in range(rng.integers(0, at_most + 1)):
            draw()
    return scene.photo(), scene.label


class Scene:
    """An image and its label, painted together so that they cannot disagree.

    Lengths are in pixels, or in units of ``scale``: 1 for a thing at the lower edge, smaller towards the horizon.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.h, self.w = int(rng.integers(176, 209)), int(rng.integers(232, 281))
        self.horizon = int(self.h * rng.uniform(0.35, 0.55))
        self.image = np.zeros((self.h, self.w, 3), np.float32)
        self.label = np.full((self.h, self.w), OTHER, np.uint8)

    def paint(self, polygons: Sequence[Sequence[Point]], color: Color, name: str, grain: float = 8.) -> None:
        """Fills polygons with a textured colour and the label of class ``name``."""
        mask = np.zeros((self.h, self.w), np.uint8)
        cv2.fillPoly(mask, [np.round(points).astype(np.int32) for points in polygons], 1)
        coarse = self.rng.normal(0, grain, (self.h // 8 + 1, self.w // 8 + 1)).astype(np.float32)
        texture = cv2.resize(coarse, (self.w, self.h), interpolation=cv2.INTER_CUBIC)
        tint = self.rng.normal(0, 10, 3)
        self.image[mask > 0] = (np.array(color) + tint + texture[..., None])[mask > 0]
        self.label[mask > 0] = label_of(name)

    def box(self, x: float, y: float, width: float, height: float, color: Color, name: str, grain: float = 4.) -> None:
        """Paints an upright rectangle whose lower edge is centred on (x, y)."""
        left, right = x - width / 2, x + width / 2
        self.paint([[(left, y), (right, y), (right, y - height), (left, y - height)]], color, name, grain)

    def stand(self, nearest: float = 1.) -> Tuple[float, float, float]:
        """A random place on the ground: x, y and the scale of what stands there."""
        depth = self.rng.uniform(0.15, nearest)
        return self.rng.uniform(0, self.w), self.horizon + depth * (self.h - self.horizon), depth

    def pick(self, *colors: Color) -> Color:
        return colors[self.rng.integers(len(colors))]

    def backdrop(self) -> None:
        """Sky, mountains, and the ground with a road (or a river) between sidewalks."""
        rng, w, h, top = self.rng, self.w, self.h, self.horizon
        self.box(w / 2, top, w, top, self.pick((120, 170, 230), (170, 190, 210), (235, 180, 130)), 'sky', 14)
        if rng.random() < 0.5:
            xs = np.linspace(0, w, 8)
            ridge = [(x, top - rng.uniform(0.1, 0.55) * top) for x in xs]
            self.paint([[(0, top), *ridge, (w, top)]], self.pick((110, 110, 130), (95, 85, 80)), 'mountain')
        self.box(w / 2, h, w, h - top, self.pick((80, 140, 50), (120, 150, 60), (60, 110, 50)), 'grass', 16)
        far, near = rng.uniform(0.3, 0.7, 2) * w
        width = rng.uniform(0.25, 0.45) * w
        for half, color, name in ((1.35 * width, (170, 160, 150), 'sidewalk'), (width, (75, 75, 80), 'road')):
            lane = [(far - 0.1 * half, top), (far + 0.1 * half, top), (near + half, h), (near - half, h)]
            self.paint([lane], color, name)
        for depth in np.arange(0.15, 1, 0.18):  # the lane marks
            y, x = top + depth * (h - top), far + depth * (near - far)
            self.box(x, y, max(1., 0.05 * depth * width), 0.06 * depth * h, (225, 225, 215), 'road')
        if rng.random() < 0.3:
            y = top + rng.uniform(0.05, 0.2) * (h - top)
            self.box(w / 2, y, w, 0.08 * h, (60, 110, 150), 'water', 12)

    def building(self) -> None:
        x, y = self.rng.uniform(0, self.w), self.horizon + self.rng.uniform(0, 0.12) * self.h
        width, height = self.rng.uniform(0.12, 0.3) * self.w, self.rng.uniform(0.2, 0.5) * self.h
        self.box(x, y, width, height, self.pick((180, 90, 70), (200, 180, 150), (140, 140, 150)), 'building')
        pane = self.pick((60, 70, 90), (240, 220, 140))
        for column in np.arange(x - width / 2 + 5, x + width / 2 - 4, 10):
            for row in np.arange(y - height + 10, y - 4, 13):
                self.box(column, row, 4, 6, pane, 'building', 2)

    def tree(self) -> None:
        x, y, scale = self.stand(0.8)
        height = (0.25 + 0.45 * scale) * self.h
        self.box(x, y, max(2., 0.07 * height), 0.5 * height, (90, 65, 45), 'tree')
        leaves = [_ellipse(x + self.rng.normal(0, 0.12) * height, y - self.rng.uniform(0.45, 0.85) * height,
                           self.rng.uniform(0.14, 0.22) * height, self.rng.uniform(0.12, 0.2) * height)
                  for _ in range(6)]
        for leaf in leaves:  # after all random places
            self.paint([leaf], self.pick((40, 95, 35), (60, 120, 45), (150, 110, 40)), 'tree', 18)

    def fence(self) -> None:
        y, height = self.horizon + 0.3 * (self.h - self.horizon), 0.1 * self.h
        left, right = sorted(self.rng.uniform(0, self.w, 2))
        for x in np.arange(left, right, 5):
            self.box(x, y, 3, height, (205, 195, 175), 'fence')
        for rail in (0.35, 0.75):
            self.box((left + right) / 2, y - rail * height, right - left, 3, (205, 195, 175), 'fence')

    def streetlight(self) -> None:
        x, y, scale = self.stand()
        height = (0.35 + 0.4 * scale) * self.h
        self.box(x, y, 2 + 2 * scale, height, (60, 62, 66), 'streetlight', 2)
        self.box(x + 6, y - height, 16, 4, (60, 62, 66), 'streetlight', 2)

    def signboard(self) -> None:
        x, y, scale = self.stand()
        height, side = (0.15 + 0.3 * scale) * self.h, (0.05 + 0.1 * scale) * self.h
        color = self.pick((200, 40, 40), (40, 80, 190), (240, 200, 40))
        self.box(x, y, 2, height, (110, 110, 110), 'signboard', 2)
        self.box(x, y - height + side, 1.4 * side, side, color, 'signboard', 3)
        self.box(x, y - height + 0.6 * side, 0.9 * side, 0.2 * side, (245, 245, 245), 'signboard', 2)

    def car(self) -> None:
        x, y, scale = self.stand()
        length, height = (0.1 + 0.3 * scale) * self.w, (0.06 + 0.14 * scale) * self.h
        color = self.pick((170, 30, 35), (30, 60, 150), (225, 225, 225), (30, 30, 32), (215, 165, 30))
        cabin = [(x - 0.3 * length, y - 0.55 * height), (x - 0.18 * length, y - height),
                 (x + 0.15 * length, y - height), (x + 0.3 * length, y - 0.55 * height)]
        self.box(x, y - 0.15 * height, length, 0.45 * height, color, 'car', 3)
        self.paint([cabin], (50, 60, 75), 'car', 3)
        for side in (-0.3, 0.3):
            wheel = _ellipse(x + side * length, y - 0.15 * height, 0.1 * length, 0.17 * height)
            self.paint([wheel], (20, 20, 22), 'car')

    def person(self) -> None:
        x, y, scale = self.stand()
        height = (0.1 + 0.25 * scale) * self.h
        shirt = self.pick((220, 60, 60), (60, 120, 220), (240, 210, 70), (230, 230, 230), (120, 60, 150))
        for side in (-0.06, 0.06):
            self.box(x + side * height, y, max(2., 0.09 * height), 0.5 * height, (45, 45, 70), 'person', 3)
        self.box(x, y - 0.45 * height, 0.28 * height, 0.38 * height, shirt, 'person', 3)
        self.paint([_ellipse(x, y - 0.9 * height, 0.09 * height, 0.1 * height)], (215, 165, 130), 'person', 3)

    def barrel(self) -> None:
        """A thing of none of the classes, labelled other."""
        x, y, scale = self.stand()
        self.box(x, y, (0.03 + 0.06 * scale) * self.w, (0.05 + 0.12 * scale) * self.h, (235, 120, 20), 'other')

    def photo(self) -> np.ndarray:
        """The image as a camera sees it: brightness, blur and noise."""
        image = cv2.GaussianBlur(self.image, (0, 0), 0.6) * self.rng.uniform(0.75, 1.15)
        image += self.rng.normal(0, 6, image.shape)
        return np.clip(image, 0, 255).astype(np.uint8)


def label_of(name: str) -> int:
    """The value of a class in ADE20K's annotations: its index plus one; 0 for ``'other'``."""
    return OTHER if name == 'other' else ADE20KDataset.METAINFO['classes'].index(name) + 1


def _ellipse(x: float, y: float, rx: float, ry: float) -> List[Point]:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [(x + rx * np.cos(a), y + ry * np.sin(a)) for a in angles]
