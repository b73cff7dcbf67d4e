from .data_preprocessor import ClassifierDataPreprocessor
from .image_classifier import ImageClassifier

__all__ = ['ClassifierDataPreprocessor', 'ImageClassifier']
