# Group norm, which needs no momentum: see the model.
_base_ = ['../models/retinanet_effb0_small.py', './data.py']

optim_wrapper = dict(optimizer=dict(lr=2e-3))
