# InceptionNeXt with its classifier, BatchNorm of each process by itself; Mixup, CutMix and label smoothing of table 9.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClassifierDataPreprocessor',
        mixup=dict(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=1000)),
    backbone=dict(type='InceptionNeXt', arch='tiny', drop_path_rate=0.1, norm_cfg=dict(type='BN')),
    head='mlp',
    num_classes=1000)
