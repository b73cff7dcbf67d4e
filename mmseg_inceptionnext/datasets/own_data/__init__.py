from .assign import Assignment, assign
from .layout import Layout, Split, find_layout
from .masks import IGNORED, Labels, find_classes, read_labels

__all__ = ['IGNORED', 'Assignment', 'Labels', 'Layout', 'Split', 'assign', 'find_classes', 'find_layout', 'read_labels']
