from .band_preprocessor import BandDataPreProcessor
from .memory_efficient_encoder_decoder import MemoryEfficientEncoderDecoder
from .running_sum_tta import RunningSumTTAModel

__all__ = ['BandDataPreProcessor', 'MemoryEfficientEncoderDecoder', 'RunningSumTTAModel']
