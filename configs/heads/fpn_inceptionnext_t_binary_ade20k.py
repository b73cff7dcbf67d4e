# One channel and a threshold: persons, which ADE20K's labels give 13, and the rest. Ours, untrained.
_base_ = '../fpn_inceptionnext_t_ade20k.py'
data = dict(
    type='FolderDataset',
    classes=['other', 'person'],
    palette=[[0, 0, 0], [150, 5, 61]],
    label_map=[255] + [0] * 12 + [1] + [0] * 137)
train_dataloader = dict(dataset=data)
val_dataloader = dict(dataset=data)
test_dataloader = val_dataloader
model = dict(
    decode_head=dict(
        num_classes=2, out_channels=1, threshold=0.5, loss_decode=dict(use_sigmoid=True, avg_non_ignore=True)))
