"""What an overlay shows."""
import numpy as np
import pytest

from mmseg_inceptionnext.inference import SegmentationResult
from mmseg_inceptionnext.inference.overlay import class_share, draw_overlay, paint

CLASSES = ('sky', 'road', 'never')
PALETTE = [[0, 0, 255], [255, 0, 0], [0, 255, 0]]


def test_shares_add_up_and_leave_absent_classes_out():
    mask = np.array([[0, 0, 0, 1]], np.uint8)
    assert class_share(mask, CLASSES) == {'sky': 0.75, 'road': 0.25}


@pytest.mark.parametrize('opacity', [0., 0.25, 1.])
def test_the_overlay_blends_and_lists_the_classes(opacity):
    image = np.full((60, 40, 3), 100, np.uint8)
    mask = np.zeros((60, 40), np.uint8)
    mask[:, 20:] = 1
    picture = np.array(draw_overlay(image, mask, CLASSES, PALETTE, opacity))
    expected = np.round((1 - opacity) * image + opacity * np.array(PALETTE)[mask])
    np.testing.assert_array_equal(picture[:60, :40], expected)
    legend = {tuple(color) for color in picture[:, 40:].reshape(-1, 3)}
    assert {(0, 0, 255), (255, 0, 0)} <= legend and (0, 255, 0) not in legend


def test_some_classes_are_painted_and_listed():
    image = np.full((60, 40, 3), 100, np.uint8)
    mask = np.zeros((60, 40), np.uint8)
    mask[:, 20:] = 1
    painted = paint(image, mask, CLASSES, PALETTE, 1., ['road', 'never'])
    np.testing.assert_array_equal(painted[:, :20], image[:, :20])
    assert (painted[:, 20:] == PALETTE[1]).all()
    legend = {tuple(color) for color in np.array(draw_overlay(image, mask, CLASSES, PALETTE, 1., ['road']))[:, 40:]
              .reshape(-1, 3)}
    assert (255, 0, 0) in legend and (0, 0, 255) not in legend
    assert draw_overlay(image, mask, CLASSES, PALETTE, 1., ['never']).size == (40, 60)  # nothing to list


def test_results_refuse_what_cannot_be_painted():
    image = np.full((60, 40, 3), 100, np.uint8)
    result = SegmentationResult(image, np.zeros((60, 40), np.uint8), ('sky', 'road '), PALETTE[:2])
    for opacity in (-0.1, 1.5, float('nan')):
        with pytest.raises(ValueError, match=rf'--opacity {opacity}: allowed is 0 \(only the image\) to 1'):
            result.overlay(opacity)
    for paint_it in (result.color, lambda names: result.overlay(0.5, names)):
        with pytest.raises(ValueError, match='--classes rood: not among the 2 classes of this model; there is road'):
            paint_it(['sky', 'rood'])
    np.testing.assert_array_equal(np.array(result.color(['road'])), np.zeros_like(image))
    np.testing.assert_array_equal(np.array(result.color([' sky'])), np.array(PALETTE)[result.mask])
