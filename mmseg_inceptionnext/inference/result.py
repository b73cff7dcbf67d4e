"""What a segmentor says of one image."""
from dataclasses import dataclass
from typing import Collection, Dict, Optional, Sequence

import numpy as np
from PIL import Image

from .overlay import check_opacity, class_share, draw_overlay, find_classes, paint


@dataclass
class SegmentationResult:
    """The classes of one image.

    Attributes:
        image: H x W x 3, uint8, RGB, at the original size.
        mask: H x W, the class id of each pixel, from 0; uint8, or uint16 above 256 classes.
        classes: name of each class id.
        palette: colour of each class id, RGB from 0 to 255.
        probabilities: number of classes x H x W, float32, or None where they were not asked for.
    """
    image: np.ndarray
    mask: np.ndarray
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    probabilities: Optional[np.ndarray] = None

    def overlay(self, opacity: float = 0.5, classes: Optional[Collection[str]] = None) -> Image.Image:
        """The image painted with its classes, or some of them, and a legend of those present.

        Raises:
            ValueError: if the opacity is not from 0 to 1, or a name is none of the classes.
        """
        check_opacity(opacity)
        return draw_overlay(self.image, self.mask, self.classes, self.palette, opacity, self._known(classes))

    def color(self, classes: Optional[Collection[str]] = None) -> Image.Image:
        """The palette's colour of each pixel; black where the class is not one of those asked for.

        Raises:
            ValueError: if a name is none of the classes.
        """
        black = np.zeros_like(self.image)
        return Image.fromarray(paint(black, self.mask, self.classes, self.palette, 1., self._known(classes)))

    def _known(self, names: Optional[Collection[str]]) -> Optional[Collection[str]]:
        return None if names is None else find_classes(names, self.classes)

    def share(self) -> Dict[str, float]:
        """Share of the pixels of each class present, largest first."""
        return class_share(self.mask, self.classes)
