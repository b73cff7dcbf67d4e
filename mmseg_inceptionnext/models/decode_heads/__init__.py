from .fast_uper_head import FastUPerHead

__all__ = ['FastUPerHead']
