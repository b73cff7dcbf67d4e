from .memory_efficient_encoder_decoder import MemoryEfficientEncoderDecoder
from .running_sum_tta import RunningSumTTAModel

__all__ = ['MemoryEfficientEncoderDecoder', 'RunningSumTTAModel']
