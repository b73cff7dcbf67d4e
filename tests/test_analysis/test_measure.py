"""What is measured, where it can be known by hand."""
import types
from contextlib import nullcontext

import pytest
import torch
from torch.autograd import DeviceType

from mmseg_inceptionnext.analysis import measure
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import ConfigError


def test_calls_take_turns(monkeypatch):
    """By a clock that a call of a moves by one second, and one of b by two."""
    calls, now = [], [0.]
    monkeypatch.setattr(measure, '_now', lambda: now[0])

    def call(name, seconds):
        calls.append(name)
        now[0] += seconds

    times = measure.alternate(dict(a=lambda: call('a', 1), b=lambda: call('b', 2)), runs=3)
    assert times == dict(a=[1.] * 3, b=[2.] * 3) and calls == list('ab' * (measure.warm_ups() + 3))


def test_macs_are_counted():
    conv = torch.nn.Conv2d(4, 8, 3, padding=1)
    assert measure.macs_of(lambda: conv(torch.zeros(2, 4, 5, 6))) == 2 * 30 * 8 * 4 * 9


def event(name, microseconds, device=DeviceType.CUDA, **more):
    span = types.SimpleNamespace(elapsed_us=lambda: microseconds)
    return types.SimpleNamespace(name=name, device_type=device, time_range=span, **more)


def test_kernels_are_counted(monkeypatch):
    events = [event('gemm', 300), event('Memcpy HtoD', 50), event('softmax', 200), event('aten::mm', 9, DeviceType.CPU),
              event('step', 900, is_user_annotation=True), event('add', 1, is_user_annotation=False)]
    profiler = types.SimpleNamespace(events=lambda: events)
    monkeypatch.setattr(measure, 'on_gpu', lambda: True)
    monkeypatch.setattr(measure, 'profile', lambda activities: nullcontext(profiler))
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)
    assert measure.kernels_of(lambda: None) == measure.Kernels(3, pytest.approx(501e-6))
    events.clear()
    assert measure.kernels_of(lambda: None) is None


def test_a_precision_that_is_not_there_is_refused(monkeypatch):
    for amp in ('fp32', 'bf16'):
        measure.check_amp(amp)
    monkeypatch.setattr(measure, 'autocast', lambda device, amp: nullcontext())
    with pytest.raises(ValueError, match='--amp bf16: PyTorch .* cannot autocast to it on cpu'):
        measure.check_amp('bf16')


def test_tf32_is_set_and_said(monkeypatch):
    monkeypatch.setattr(measure, 'on_gpu', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Fake GPU')
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        for allowed in (True, False, None):
            measure.set_tf32(allowed)
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (bool(allowed), bool(allowed))
        matmul.allow_tf32 = True
        text = measure.machine(['fp32', 'bf16'])
        assert text.startswith('Fake GPU, ') and ', float32 and bfloat16 autocast, torch ' in text
        assert text.endswith('TF32 off for convolutions, on for matrix products')
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def peak_of_64_mebibytes():
    return measure.peak_memory(lambda: torch.ones(2**24), lambda: torch.ones(2**22), torch.nn.Identity())


@pytest.mark.slow
def test_peak_memory_is_that_of_the_call():
    measure.free_at_once()
    assert 60 < measure.isolated(peak_of_64_mebibytes) / 2**20 < 72


@pytest.mark.slow
def test_errors_of_other_processes_keep_their_kind():
    with pytest.raises(ConfigError, match='missing.py: no such config'):
        measure.isolated(load_config, 'missing.py')
