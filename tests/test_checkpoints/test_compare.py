"""Whether a checkpoint fits a model, and holds numbers."""
import pytest
import torch
from torch import nn

from mmseg_inceptionnext.checkpoints import check_segmentor
from mmseg_inceptionnext.checkpoints.compare import check_finite, compare
from mmseg_inceptionnext.errors import CheckpointError


def model_and_state():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    return model, {key: value.clone() for key, value in model.state_dict().items()}


def test_a_checkpoint_that_fits_passes():
    model, state = model_and_state()
    check_segmentor(model, dict(state_dict={f'module.{key}': value for key, value in state.items()}), 'a.pth')


@pytest.mark.parametrize('number', [float('nan'), float('inf'), -float('inf')])
def test_weights_that_are_not_finite_are_named(number):
    model, state = model_and_state()
    state['1.running_var'][2] = number
    with pytest.raises(CheckpointError, match='a.pth cannot be used: 1 of its .* 1.running_var'):
        check_segmentor(model, state, 'a.pth')
    model[1].running_var[2] = number  # as a mask may have from the start
    check_finite(model.state_dict(), state, 'a.pth')


def test_every_kind_of_difference_is_counted():
    model, state = model_and_state()
    state['0.weight'] = torch.zeros(4, 3, 3, 3)
    state['1.num_batches_tracked'] = torch.zeros(())  # a float
    state['other'] = state.pop('0.bias')
    result = compare(model.state_dict(), state)
    assert (result.missing, result.unexpected, sorted(result.misshaped)) == (
        ['0.bias'], ['other'], ['0.weight', '1.num_batches_tracked'])
    with pytest.raises(CheckpointError, match=r'4 of its 7 tensors match[\s\S]*0.bias[\s\S]*other[\s\S]*0.weight'):
        check_segmentor(model, state, 'a.pth')
