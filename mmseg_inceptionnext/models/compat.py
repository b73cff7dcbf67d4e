"""What PyTorch is doing at the moment, asked in a way that its versions from 2.1 on understand."""
import torch


def is_compiling() -> bool:
    """Whether torch.compile runs the model; PyTorch 2.1 cannot tell."""
    return getattr(torch.compiler, 'is_compiling', lambda: False)()


def _autocast_takes_a_device() -> bool:
    try:
        torch.is_autocast_enabled('cpu')
    except TypeError:  # before PyTorch 2.4
        return False
    return True


AUTOCAST_TAKES_A_DEVICE = _autocast_takes_a_device()  # found out here, since torch.compile catches no such error


def is_autocast_on_cpu() -> bool:
    """Whether autocast is on for the CPU."""
    return torch.is_autocast_enabled('cpu') if AUTOCAST_TAKES_A_DEVICE else torch.is_autocast_cpu_enabled()
