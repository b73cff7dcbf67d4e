# ADE20K as the Semantic FPN recipe has it: batch 8 x 4, tested at multiples of 32, the last stride.
_base_ = './ade20k.py'
test_pipeline = _base_.test_pipeline
test_pipeline.insert(2, dict(type='ResizeToMultiple', size_divisor=32))  # after Resize
train_dataloader = dict(batch_size=4)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
