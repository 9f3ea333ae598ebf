"""The faults that faults.py puts into the package, one at a time.

`@ file | kind | what changes`, then the text before (`-`) and after (`+`), which may be a part of a
line; where there is none after, whole lines go. Files are those of condconv_det/, or of tools/.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

TEXT = r"""
@ compat/mmcv_ext/nms.py | wrong comparison | NMS compares with a double threshold
- float(np.float32(iou_threshold))
+ float(iou_threshold)
@ compat/mmcv_ext/nms.py | wrong comparison | soft NMS spares an overlap equal to the threshold
- np.where(iou >= iou_threshold, lowered
+ np.where(iou > iou_threshold, lowered
@ compat/mmcv_ext/roi_align.py | off-by-one | maximum pooling samples at the bins' edges
- grid.new_tensor([row + 0.5, column + 0.5])
+ grid.new_tensor([row + 0.0, column + 0.0])
@ compat/mmcv_ext/roi_pool.py | off-by-one | a region ends a pixel early
- size = ((last + 1) * spatial_scale)[:, None] - start
+ size = (last * spatial_scale)[:, None] - start
@ compat/mmcv_ext/deform_kernels.py | wrong comparison | samples at exactly -1 have a slope
- off_axis = (place <= -1) |
+ off_axis = (place < -1) |
@ compat/mmcv_ext/focal_loss.py | dropped step | ignored targets have a softmax gradient
-     derivative = derivative.masked_fill(target < 0, 0)
@ compat/checkpoints.py | dropped check | private names of a log history may be called
- if owner is not HistoryBuffer or name.startswith('_'):
+ if owner is not HistoryBuffer:
@ compat/resume.py | wrong comparison | the newest checkpoint is the one of most iterations
- written, key=lambda path: (written[path]['time'], written[path]['iter']), reverse=True
+ written, key=lambda path: written[path]['iter'], reverse=True
@ compat/memory.py | dropped step | large tensors go back to the system
- bool(libc.mallopt(M_MMAP_MAX, 0) and libc
+ bool(libc
@ compat/plain_files.py | dropped check | annotations may be a .pickle
- if str(file).endswith(('.pkl', '.pickle')):
+ if str(file).endswith('.pkl'):

@ ops/padding.py | swapped axis | an odd zero goes left and above
- return total // 2, total - total // 2
+ return total - total // 2, total // 2
@ ops/autocast.py | dropped check | autocast narrows float64
- if x.dtype == torch.float64 or not _is_enabled
+ if not _is_enabled
@ ops/cond_linear.py | dropped step | a batch of one gets no bias
- return F.linear(x, torch.tensordot(routing[0], weight, dims=1), bias)
+ return F.linear(x, torch.tensordot(routing[0], weight, dims=1))
@ ops/export_conv.py | swapped axis | columns are dilated as rows are
- top, left = row * dilation[0], column * dilation[1]
+ top, left = row * dilation[0], column * dilation[0]
@ ops/kernels.py | wrong comparison | kernels are kept where they are more than the experts
- return len(x) <= len(weight) or
+ return len(x) >= len(weight) or
@ ops/kernels.py | dropped gradient | routing keeps the last block's gradient alone
- grad_routing = of_rows if grad_routing is None else grad_routing + of_rows
+ grad_routing = of_rows
@ ops/kernels.py | dropped gradient | experts keep the last examples' gradient alone
- grad_weight.flatten(1).addmm_(of_few.mT, kernels.flatten(1))
+ grad_weight.flatten(1).addmm_(of_few.mT, kernels.flatten(1), beta=0)
@ ops/kernels.py | dropped gradient | no gradient of routing where experts are frozen
- needs = needs[0], needs[1] or needs[2], False
+ needs = needs[0], needs[2], False
@ ops/kernels.py | dropped step | a backward pass that is differentiated writes over its results
- kernel = ctx.kernel.differentiable() if torch.is_grad_enabled() else ctx.kernel
+ kernel = ctx.kernel

@ layers/router.py | sign | the temperature multiplies
- logits = logits / self.temperature
+ logits = logits * self.temperature
@ layers/router.py | wrong default | the first hierarchical router sees ones
- previous = logits.new_zeros(
+ previous = logits.new_ones(
@ layers/cond_conv2d.py | swapped axis | padding modes swap the sides
- sides = (horizontal, horizontal, vertical, vertical)
+ sides = (vertical, vertical, horizontal, horizontal)
@ layers/experts.py | dropped step | a copy's experts are not marked as such
-         super().__setstate__(state)
-         mark_expert_axis(self.weight)
+         super().__setstate__(state)
@ layers/cond_cfg.py | off-by-one | cond_cfg.start may be 0
- not 1 <= parsed.start <= num_blocks
+ not 0 <= parsed.start <= num_blocks
@ layers/routed.py | dropped step | a layer's router does not get the weights of the one before
- routing = layer.router(x, routing)
+ routing = layer.router(x)
@ layers/routed.py | dropped step | norms count a recomputed batch twice
- norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
+ norm.num_batches_tracked = norm.num_batches_tracked.clone()
@ layers/static_weights.py | dropped step | the noise of split experts has a sum
-     noise -= noise.mean(0)

@ backbones/staged.py | dropped check | strided layers, too, are padded by half their kernel
- if stride == 1 and conv_cfg is not None and
+ if conv_cfg is not None and
@ backbones/staged.py | dropped step | train() wakes frozen stages
-         super().train(mode)
-         self._freeze_stages()
+         super().train(mode)
@ backbones/efficientnet.py | off-by-one | routing starts earlier in deeper networks
- math.ceil(depth * num_blocks)
+ round(depth * num_blocks)
@ backbones/mnasnet.py | wrong default | squeezes to a quarter of the expanded channels
- ratio=4 * expand_ratio
+ ratio=4
@ backbones/mobilenet_v2.py | dropped step | the last convolution is never routed
- blocks = [block for stage in stages[:7] for block in stage] + stages[7:]
+ blocks = [block for stage in stages[:7] for block in stage]
@ backbones/mobilenet_v3.py | dropped step | squeezed channels are not rounded to 8
- ratio=channels / make_divisible(channels // 4, 8)
+ ratio=channels / (channels // 4)
@ backbones/resnet.py | wrong default | another norm than a bottleneck's last starts at zero
- last_norm = 'norm2' if issubclass(block, BasicBlock) else 'norm3'
+ last_norm = 'norm2'
@ backbones/inverted_residual.py | dropped step | no block is ever dropped
- return x + self.drop_path(out) if
+ return x + out if

@ heads/ssd_anchors.py | swapped axis | anchors are as high as they should be wide
- torch.stack([scale * ratio.sqrt(), scale / ratio.sqrt()], 1)
+ torch.stack([scale / ratio.sqrt(), scale * ratio.sqrt()], 1)
@ heads/ssd_anchors.py | wrong default | no scale of 1 after the last level
- zip(scales, [*scales[1:], 1.0])
+ zip(scales, [*scales[1:], scales[-1]])
@ heads/ssd_head.py | dropped step | boxes are not decoded for a loss of boxes
-         if self.reg_decoded_bbox:
-             bbox_pred = self.bbox_coder.decode(anchor, bbox_pred)
@ heads/routed_head.py | dropped check | a second init_weights starts trained predictors again
- if self.is_init or any(
+ if any(
@ heads/retina_head.py | dropped check | cond_cfg.parts may be empty
- if not parts or not set(parts) <= set(PARTS):
+ if not set(parts) <= set(PARTS):
@ heads/cls_head.py | dropped step | no dropout
- return self.dropout(super().pre_logits(feats))
+ return super().pre_logits(feats)

@ weights/fit.py | off-by-one | what the last stage lacks a place for is passed over
- return int(match[2]) > last
+ return int(match[2]) >= last
@ weights/conversion.py | wrong comparison | a difference that is not a number passes
- and not difference <= TOLERANCE:
+ and difference > TOLERANCE:
@ weights/files.py | dropped step | names keep the prefix of several devices
- weights = {key.removeprefix('module.'): value for key, value in weights.items()}
+ weights = {key: value for key, value in weights.items()}
@ weights/names.py | wrong comparison | block 10 comes before block 2
- sorted(inside, key=lambda prefix: [int(n) for n in NUMBER.findall(prefix)])
+ sorted(inside)
@ weights/static.py | wrong default | softmax experts are summed, not averaged
- weight = 0.5 if activation == 'sigmoid' else 1 / len(experts)
+ weight = 0.5 if activation == 'sigmoid' else 1.0
@ weights/trained.py | dropped check | weights that the network has not are passed over
-         'the network has no': weights.keys() - own.keys(),

@ engine/epoch_seed_hook.py | dropped step | persistent workers keep the first epoch's seed
-             loader._iterator = None  # as mmdet's PipelineSwitchHook restarts persistent workers
@ engine/broken_images_hook.py | dropped step | broken images are counted in all, not in a row
-         self._in_a_row = 0
-         return sample
+         return sample
@ analysis/classes.py | dropped step | data sets in a wrapper are not checked
-     for part in leaf_datasets(dataset):
-         _check_categories(part, classes)
+     for part in (dataset,):
+         _check_categories(part, classes)
@ engine/dataset_check_hook.py | wrong default | the validation set is checked as for training
- self._check_set(runner, dataset, evaluated=True)
+ self._check_set(runner, dataset, evaluated=False)
@ engine/finite_loss_hook.py | dropped step | the loss is checked after the optimizer's step alone
-         wrapper.optimizer.register_step_pre_hook(lambda *_: self._check_loss(runner))
@ engine/optim_wrapper_constructor.py | dropped step | experts lose their other multipliers
- group['lr'] = group.get('lr', self.base_lr) * rate
+ group['lr'] = self.base_lr * rate
@ engine/routing_hook.py | off-by-one | numbers are logged a step early
- add_scalars(self._scalars(), step=step + 1)
+ add_scalars(self._scalars(), step=step)
@ layers/expert_start.py | dropped step | all layers have the same noise
- zlib.crc32(repr(_sample(layer)).encode())
+ zlib.crc32(b'')

@ analysis/bootstrap.py | wrong default | the interval holds 90 percent
- np.nanquantile(means, [0.025, 0.975])
+ np.nanquantile(means, [0.05, 0.95])
@ analysis/curves.py | off-by-one | steps before the first logged time do not count
- np.diff(ends, prepend=0)
+ np.diff(ends, prepend=ends[0])
@ analysis/cost.py | swapped axis | height and width of the test size
- return height, width
+ return width, height
@ analysis/routing.py | dropped step | several calls an image count as one
- rows = weights.reshape(len(weights), -1)
+ rows = weights.mean(1)
@ analysis/routing_figures.py | sign | the smallest groups are drawn
- np.argsort(-grouping.counts, kind='stable')
+ np.argsort(grouping.counts, kind='stable')
@ analysis/routing_records.py | wrong default | images are routed in another order than listed
- dict(type='DefaultSampler', shuffle=False)
+ dict(type='DefaultSampler', shuffle=True)
@ analysis/routing_report.py | off-by-one | the middle of an even number of layers
- middle=layers[(len(layers) - 1) // 2]
+ middle=layers[len(layers) // 2]

@ study/plan.py | dropped check | a seed may come twice
-         and all(type(seed) is int and seed >= 0 for seed in seeds)
-         and len(set(seeds)) == len(seeds)
+         and all(type(seed) is int and seed >= 0 for seed in seeds)
@ study/runs.py | dropped check | old figures stand for a training that is yet to come
- if left or read_metrics(
+ if read_metrics(
@ study/runs.py | swapped axis | the validation set is measured by the test set's annotations
-             arm.cfg.val_evaluator,
+             arm.cfg.test_evaluator,
@ study/work_dirs.py | dropped check | any whole checkpoint ends a training
- return last.exists() and Path(last.read_text()).name == checkpoint.name
+ return last.exists()
@ study/trainings.py | dropped check | a run starts although the one before it failed
-         if start is not None and start.exception():
-             raise RunFailed(f'since it starts from {run.start.name}, which failed')
@ study/differences.py | dropped check | all arms are measured on the first one's images
-     for arms in _on_one_set(study, split):
+     for arms in [list(study.arms)]:
@ study/differences.py | sign | the difference is the baseline's from the arm's
- _mean(found.maps[ours], groups) - _mean(found.maps[theirs], groups)
+ _mean(found.maps[theirs], groups) - _mean(found.maps[ours], groups)
@ study/differences.py | swapped axis | a difference without a group is the one in it
- over([other for other in names if other != name])
+ over([other for other in names if other == name])

@ deploy/check.py | dropped check | a detection that the file lacks goes unseen
- in ((image, other), (other, image)):
+ in ((image, other),):
@ deploy/detector.py | wrong comparison | a box that scores the threshold itself is listed
- found = found[found.scores > score_thr].cpu()
+ found = found[found.scores >= score_thr].cpu()
@ deploy/exportable.py | swapped axis | boxes are clipped to the image on its side
- self.priors.new_tensor([size[1], size[0]] * 2)
+ self.priors.new_tensor([size[0], size[1]] * 2)
@ deploy/fold_batch_norm.py | dropped check | norms are folded into shared convolutions
- if _is_linear(conv) and _is_fixed(norm) and holders[conv] == 1:
+ if _is_linear(conv) and _is_fixed(norm):
@ deploy/onnx_detector.py | off-by-one | the first class is thrown away as padding
- self._without_small(found[labels >= 0])
+ self._without_small(found[labels > 0])
@ deploy/page.py | dropped check | files that were not uploaded are read
- if not (file.is_relative_to(uploads) and file.is_file()):
+ if not file.is_file():
@ deploy/suppression.py | wrong comparison | a box that is small on one side stays
- test_cfg['min_bbox_size']).all(-1)
+ test_cfg['min_bbox_size']).any(-1)
@ deploy/write.py | swapped axis | the padding has its channels reversed
- pad_pixel=pixel[::-1] if preprocessor._channel_conversion else pixel,
+ pad_pixel=pixel,

@ data/voc_xml.py | off-by-one | boxes lose their last row and column
- box = [xmin - 1, ymin - 1, xmax, ymax]
+ box = [xmin - 1, ymin - 1, xmax - 1, ymax - 1]
@ data/crops.py | off-by-one | crops lose the last column that they touch
- min(math.ceil(right + dx), width)
+ min(math.floor(right + dx), width)
@ data/check_coco.py | off-by-one | a single hole in category ids goes unnoticed
- max(ids) - min(ids) >= len(ids)
+ max(ids) - min(ids) > len(ids)
@ data/check_images.py | off-by-one | more images are looked at than asked for
- max(1, -(-len(entries) // max_images))
+ max(1, len(entries) // max_images)
@ data/image_size.py | off-by-one | a photograph mirrored on its side counts as upright
- get(_EXIF_ORIENTATION, 1) >= 5
+ get(_EXIF_ORIENTATION, 1) > 5
@ data/shapes.py | off-by-one | boxes end in the middle of their last pixel
- np.concatenate([low, high - low + 1])
+ np.concatenate([low, high - low])

@ tools/doctor.py | wrong comparison | a post-release of the newest version counts as newer
- if number(found)[: len(number(newest))] > number(newest):
+ if number(found) > number(newest):
@ tools/get_flops.py | off-by-one | images may be of no pixels
- min(args.shape) < 1
+ min(args.shape) < 0
@ tools/check_dataset.py | dropped step | --fix keeps images that cannot be used
- found = check_coco(data, source.evaluated, source.classes, files.unusable)
+ found = check_coco(data, source.evaluated, source.classes)
@ tools/serve.py | off-by-one | the port may be 0
- not 1 <= int(text) <= 65535
+ not 0 <= int(text) <= 65535
"""


class Fault(NamedTuple):
    """A text that occurs once in a file, and what takes its place."""

    file: str
    kind: str
    change: str
    before: str
    after: str

    @property
    def room(self) -> str:
        return self.file.partition('/')[0]

    @property
    def path(self) -> str:
        """From the root of the checkout."""
        return self.file if self.room == 'tools' else f'condconv_det/{self.file}'

    @property
    def id(self) -> str:
        """Another one as soon as the texts change."""
        return f'{self.file} {zlib.crc32(f"{self.before}>{self.after}".encode()):08x}'


def _parse(text: str) -> list[Fault]:
    faults = []
    for entry in text.split('\n@ ')[1:]:
        head, *lines = entry.splitlines()
        file, kind, change = head.split(' | ')
        before = '\n'.join(line[2:] for line in lines if line.startswith('- '))
        after = '\n'.join(line[2:] for line in lines if line.startswith('+ '))
        faults.append(Fault(file, kind, change, before if after else f'{before}\n', after))
    return faults


FAULTS = _parse(TEXT)


def rotten(root: Path) -> list[str]:
    """What is wrong with the list: a text that is not in its file of a checkout, or not once."""
    problems, seen = [], set()
    for fault in FAULTS:
        file = root / fault.path
        times = file.read_text().count(fault.before) if file.is_file() else 0
        if times != 1 or not fault.before.strip():
            problems.append(f'{fault.file}: {times} times in the file: {fault.before!r}')
        if fault.before == fault.after or fault.id in seen:
            problems.append(f'{fault.file}: changes nothing, or is there twice: {fault.change}')
        seen.add(fault.id)
    return problems
