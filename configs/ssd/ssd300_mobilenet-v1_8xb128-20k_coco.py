_base_ = [
    '../_base_/models/ssd300_mobilenet-v1.py',
    '../_base_/datasets/coco_ssd300.py',
    '../_base_/schedules/ssd_8xb128-20k.py',
]
