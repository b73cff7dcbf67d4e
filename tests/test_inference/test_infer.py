"""Where results go, and what an overlay shows."""
import numpy as np
import pytest

from mmseg_inceptionnext.inference.infer import infer, plan_outputs
from mmseg_inceptionnext.inference.overlay import class_share, draw_overlay

CLASSES = ('sky', 'road', 'never')
PALETTE = [[0, 0, 255], [255, 0, 0], [0, 255, 0]]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
    return str(path)


def test_files_and_folders_are_planned(tmp_path):
    single = touch(tmp_path / 'one/a.jpg')
    nested = touch(tmp_path / 'many/sub/b.PNG')
    touch(tmp_path / 'many/notes.txt')
    out = str(tmp_path / 'out')
    assert plan_outputs([single, str(tmp_path / 'many')], out) == {single: f'{out}/a', nested: f'{out}/sub/b'}


def test_results_inside_an_input_folder_are_not_inputs(tmp_path):
    image = touch(tmp_path / 'a.jpg')
    touch(tmp_path / 'out/a_overlay.jpg')
    touch(tmp_path / 'out/a.png')
    assert list(plan_outputs([str(tmp_path)], str(tmp_path / 'out'))) == [image]


@pytest.mark.parametrize('names,inputs,out,words', [
    (['x/a.jpg', 'y/a.jpg'], ['x/a.jpg', 'y/a.jpg'], 'out', 'would both be written to .*out/a.png'),
    (['x/a.jpg', 'x/a.png'], ['x'], 'out', 'would both be written to'),
    (['x/a.png'], ['x'], 'x', 'could overwrite'),  # a result over its input
    (['x/a.jpg', 'x/a.png'], ['x/a.jpg'], 'x', 'could overwrite'),  # and over the label beside it
])
def test_nothing_is_overwritten(tmp_path, names, inputs, out, words):
    for name in names:
        touch(tmp_path / name)
    with pytest.raises(ValueError, match=f'{words}.* nothing was done: choose another --out-dir'):
        plan_outputs([str(tmp_path / name) for name in inputs], str(tmp_path / out))


def test_no_image_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r'no image in .*\.jpg'):
        plan_outputs([str(tmp_path)], 'out')


def test_opacity_is_checked():
    with pytest.raises(ValueError, match='--opacity 1.5: allowed is 0'):
        infer(None, ['a.jpg'], 'out', opacity=1.5)


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
