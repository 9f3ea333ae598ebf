"""Study files: what is read from them, and what is refused."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from condconv_det.study.plan import Study

CONFIGS = Path(__file__).parents[2] / 'configs'
SHAPES = CONFIGS / 'shapes' / 'ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
STATIC = f'dict(config={str(SHAPES)!r})'
HEAD = SHAPES.with_name('ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py')
RETINANET = SHAPES.with_name('retinanet128_effb0_1xb8-10e_shapes.py')
BY_SITE = """{
    f'{split}_evaluator.{key}': value
    for split in ('val', 'test')
    for key, value in dict(
        type='GroupedCocoMetric', group_by='site', ann_file=f'{split}.json'
    ).items()
}"""


def test_an_arm_is_its_config_with_its_options_hooks_and_the_studys_length(read):
    arms = f"""dict(
        static={STATIC},
        other=dict(
            config={str(SHAPES)!r},
            cfg_options={{'optim_wrapper.optimizer.lr': 0.1, 'model.backbone.widen_factor': 0.25}},
            custom_hooks=[dict(type='RoutingHook')],
        ),
    )"""
    study = read(arms=arms, epochs='36')
    static, other = study.arms['static'].cfg, study.arms['other'].cfg
    assert static.optim_wrapper.optimizer.lr == Config.fromfile(SHAPES).optim_wrapper.optimizer.lr
    assert (other.optim_wrapper.optimizer.lr, other.model.backbone.widen_factor) == (0.1, 0.25)
    assert [hook.type for hook in other.custom_hooks] == [
        *(hook.type for hook in static.custom_hooks),
        'RoutingHook',
    ]
    for cfg in (static, other):
        assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (36, 3)
        warm_up, cosine = cfg.param_scheduler
        assert (warm_up.end, cosine.T_max, cosine.end) == (50, 36, 36)


def test_an_arm_logs_what_the_table_needs(read):
    backends = "[dict(type='TensorboardVisBackend')]"
    arms = f"dict(static=dict({STATIC}, cfg_options={{'visualizer.vis_backends': {backends}}}))"
    cfg = read(arms=arms).arms['static'].cfg
    assert [backend.type for backend in cfg.visualizer.vis_backends] == [
        'TensorboardVisBackend',
        'LocalVisBackend',
    ]


def test_types_may_name_their_scope_or_be_classes(read, tmp_path):
    cfg = Config.fromfile(SHAPES)
    cfg.visualizer.vis_backends = [dict(type='mmdet.LocalVisBackend')]
    cfg.val_evaluator.type = 'mmdet.CocoMetric'
    config = tmp_path / 'classes.py'
    config.write_text(
        'from mmdet.evaluation import CocoMetric\n'
        f'{cfg.pretty_text}\ntest_evaluator.update(type=CocoMetric)\n'
    )
    arm = read(arms=f'dict(static=dict(config={str(config)!r}))').arms['static']
    assert arm.metric == arm.metric_of('test') == 'coco/bbox_mAP'
    assert len(arm.cfg.visualizer.vis_backends) == 1


def test_an_evaluator_may_be_a_list_of_one(read, tmp_path):
    config = tmp_path / 'lists.py'
    config.write_text(
        f'{Config.fromfile(SHAPES).pretty_text}\n'
        'val_evaluator, test_evaluator = [val_evaluator], (test_evaluator,)\n'
    )
    arm = read(arms=f'dict(static=dict(config={str(config)!r}))').arms['static']
    assert arm.metric == arm.metric_of('test') == 'coco/bbox_mAP'
    assert arm.cfg.test_evaluator.type == 'CocoMetric'  # to which a test's options are added


def test_checkpoints_are_saved_where_a_study_looks_for_them(read):
    given = dict(by_epoch=False, save_last=False, save_begin=9, filename_tmpl='a', out_dir='b')
    options = {f'default_hooks.checkpoint.{key}': value for key, value in given.items()}
    arms = f'dict(static=dict({STATIC}, cfg_options={options}))'
    hook = read(arms=arms).arms['static'].cfg.default_hooks.checkpoint
    usual = dict(by_epoch=True, save_last=True, save_begin=0, filename_tmpl=None, out_dir=None)
    assert {key: hook[key] for key in usual} == usual
    assert not set(usual) & set(read().arms['static'].cfg.default_hooks.checkpoint)


def test_classes_are_those_that_the_data_set_reads(read, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('circle\nstar\n')
    of_file = dict(type='CocoDataset', metainfo=dict(classes=str(names)))
    options = {
        'val_dataloader.dataset': dict(of_file, _delete_=True),
        'test_dataloader.dataset': dict(
            type='ConcatDataset',
            datasets=[dict(of_file, pipeline=[dict(type='Resize', scale=64)])],
            _delete_=True,
        ),
        'train_dataloader.dataset': dict(type='CityscapesDataset', _delete_=True),
    }
    arm = read(arms=f'dict(static=dict({STATIC}, cfg_options={options}))').arms['static']
    assert arm.classes('val') == arm.classes('test') == ['circle', 'star']
    assert arm.classes('train')[:2] == ('person', 'rider')


def test_the_studies_that_come_with_the_package_are_whole():
    for path in (CONFIGS / 'studies').glob('*.py'):
        study = Study.fromfile(path)
        assert len(study.seeds) >= 3 and len(study.arms) >= 2


@pytest.mark.parametrize(
    'lines, error, says',
    [
        (dict(seeds=None), ValueError, r"lacks \['seeds'\]"),
        (dict(seeds='(0, 0)'), ValueError, r'different integers of at least 0, got \(0, 0\)'),
        (dict(seeds='3'), ValueError, 'seeds must be different integers of at least 0, got 3'),
        (dict(seeds='()'), ValueError, r'different integers of at least 0, got \(\)'),
        (dict(seeds='(0, -1)'), ValueError, r'different integers of at least 0, got \(0, -1\)'),
        (dict(seeds='(0, 0.5)'), ValueError, r'different integers of at least 0, got \(0, 0.5\)'),
        (dict(seeds='([0], [1])'), ValueError, r'integers of at least 0, got \(\[0\], \[1\]\)'),
        (dict(seeds='(0, one)'), ValueError, "study.py: NameError: name 'one' is not defined"),
        (dict(epochs='0'), ValueError, 'epochs must be at least 1, got 0'),
        (
            dict(epochs=None, iterations='0.5'),
            ValueError,
            'iterations must be at least 1, got 0.5',
        ),
        (dict(epochs=None), ValueError, 'must have either epochs or iterations, got neither'),
        (dict(iterations='60'), ValueError, r"either .* got \['epochs', 'iterations'\]"),
        (dict(seeds='(0,'), ValueError, 'study.py is not Python: .*never closed'),
        (dict(arms='[0]'), ValueError, r'arms must be a dict of dicts, got \[0\]'),
        (dict(arms='dict(static=1)'), ValueError, "dict of dicts, got {'static': 1}"),
        (dict(epochs='True'), ValueError, 'epochs must be at least 1, got True'),
        (dict(arms=f'{{1: {STATIC}}}'), ValueError, 'an arm is named like a folder, got 1'),
        (dict(baseline="['static']"), ValueError, r"baseline \['static'\] is none of \['static'"),
        (dict(baseline="'statik'"), ValueError, r"baseline 'statik' is none of \['static'\]"),
        (
            dict(arms=f"{{'static': {STATIC}, '../x': {STATIC}}}"),
            ValueError,
            r"named like a folder, got '\.\./x'",
        ),
        (
            dict(arms="dict(static=dict(config='nowhere.py'))"),
            FileNotFoundError,
            "arm 'static': its config .*nowhere.py does not exist",
        ),
        (
            dict(
                arms=f"dict(static=dict({STATIC}, cfg_options={{'param_scheduler.9.end': 1}}))",
            ),
            ValueError,
            "study.py: arm 'static': KeyError: .Index 9 exceeds the length",
        ),
        (
            dict(
                learning_rates='(1e-3, 2e-3)',
                arms=f"""dict(static=dict({STATIC}, cfg_options=dict(
                    param_scheduler=[dict(type='OneCycleLR', eta_max=4e-3, total_steps=375)],
                )))""",
            ),
            ValueError,
            "arm 'static': learning_rates change nothing where param_scheduler.0, OneCycleLR,",
        ),
        (
            dict(arms=f'dict(static=dict({STATIC}, custom_hooks=3))'),
            ValueError,
            "study.py: arm 'static': custom_hooks must be a list of dicts, got 3",
        ),
        (
            dict(arms=f"dict(static=dict({STATIC}, custom_hooks=dict(type='RoutingHook')))"),
            ValueError,
            "custom_hooks must be a list of dicts, got {'type': 'RoutingHook'}",
        ),
        (
            dict(arms='dict(static=dict(config=5))'),
            ValueError,
            "study.py: arm 'static': config must be a path, got 5",
        ),
        (
            dict(arms=f'dict(static=dict({STATIC}, start="x"))'),
            ValueError,
            r"arm 'static' has unknown keys \['start'\]",
        ),
        (
            dict(arms=f"dict(static=dict({STATIC}, start_from='e8'))"),
            ValueError,
            "start_from must lead to an arm that starts on its own, got {'static': 'e8'}",
        ),
        (
            dict(
                arms=f"""dict(
                    static={STATIC},
                    a=dict({STATIC}, start_from='b'),
                    b=dict({STATIC}, start_from='a'),
                )"""
            ),
            ValueError,
            "start_from must lead to an arm .* got {'a': 'b', 'b': 'a'}",
        ),
        (
            dict(
                arms=f"""dict(
                    static={STATIC},
                    a=dict({STATIC}, cfg_options={{'val_evaluator.ann_file': 'mine.json'}}),
                )"""
            ),
            ValueError,
            "'a' and its baseline 'static' are compared on one val set, got mine.json and .*val",
        ),
        (
            dict(
                arms=f"""dict(
                    static={STATIC},
                    a=dict({STATIC}, cfg_options={{
                        f'{{split}}_evaluator.{{key}}': value
                        for split in ('val', 'test')
                        for key, value in dict(type='GroupedCocoMetric', group_by='site').items()
                    }}),
                )"""
            ),
            ValueError,
            'scored by one metric and group_by on val and test, got coco/bbox_mAP, that of arm '
            "'static' on val, coco/site_mAP, that of arm 'a' on val",
        ),
        (
            dict(
                arms=f"""dict(
                    static=dict({STATIC}, cfg_options={{
                        'test_evaluator.type': 'GroupedCocoMetric',
                        'test_evaluator.group_by': 'site',
                    }}),
                )"""
            ),
            ValueError,
            "coco/bbox_mAP, that of arm 'static' on val, coco/site_mAP, that of arm 'static' on t",
        ),
        (
            dict(
                arms=f"""dict(
                    static=dict({STATIC}, cfg_options=dict(test_evaluator=dict(type='VOCMetric')))
                )"""
            ),
            ValueError,
            "arm 'static': test_evaluator must be one CocoMetric, got .*VOCMetric",
        ),
        *(
            (
                dict(
                    arms=f"""dict(
                        static=dict({STATIC}, cfg_options={{'val_evaluator.{key}': {value}}})
                    )"""
                ),
                ValueError,
                f"arm 'static': val_evaluator must measure 'coco/bbox_mAP', got {key}=",
            )
            for key, value in dict(
                metric="'proposal'",
                iou_thrs='[0.5]',
                metric_items="['mAP_50']",
                prefix="'mine'",
                format_only='True',
            ).items()
        ),
        (
            dict(
                arms=f"dict(static=dict({STATIC}, cfg_options={{'val_evaluator.ann_file': None}}))"
            ),
            ValueError,
            "arm 'static': val_evaluator must name its annotations, ann_file",
        ),
        (
            dict(arms=f"dict(static=dict({STATIC}, cfg_options={{'train_cfg.max_epochs': 9}}))"),
            ValueError,
            "arm 'static': every training has 3 epochs, got 9 by cfg_options",
        ),
        (
            dict(
                arms=f'dict(static=dict({STATIC}, custom_hooks=[dict(type="EarlyStoppingHook")]))'
            ),
            ValueError,
            "arm 'static': every training has 3 epochs, but its EarlyStoppingHook may end one",
        ),
        *(
            (
                dict(
                    arms=f'dict(static=dict({STATIC}, custom_hooks=[dict(type="{kind}", {key}=3)]))'
                ),
                ValueError,
                f'{kind} changes .* at no time within 3 epochs; set custom_hooks.5.{key}, got 3',
            )
            for kind, key in [
                ('PipelineSwitchHook', 'switch_epoch'),
                ('YOLOXModeSwitchHook', 'num_last_epochs'),
                ('EMAHook', 'begin_epoch'),
            ]
        ),
        (
            dict(
                arms=f"""dict(
                    static=dict({STATIC}, cfg_options={{
                        'test_dataloader.dataset.pipeline': [dict(type='LoadImageFromFile')]
                    }}),
                )"""
            ),
            ValueError,
            "arm 'static': its cost could not be measured: the test pipeline has no Resize",
        ),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(read, lines, error, says):
    with pytest.raises(error, match=says):
        read(**lines)


@pytest.mark.parametrize(
    'arm',
    [
        f'dict(config={str(HEAD)!r})',
        f"""dict(
            config={str(RETINANET)!r},
            cfg_options={{'model.neck.conv_cfg': dict(type='CondConv2d', num_experts=4)}},
        )""",
    ],
)
def test_arms_need_a_static_baseline(read, arm):
    with pytest.raises(ValueError, match="baseline 'e8' must be a static network, .* has experts"):
        read(baseline="'e8'", arms=f'dict(static={STATIC}, e8={arm})')
    ours = f"dict(static={STATIC}, e8={arm}, wide=dict({STATIC}, baseline='e8'))"
    assert read(arms=ours).arms['wide'].baseline == 'e8'


def test_a_key_that_images_lack_is_named_before_anything_is_trained(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arms = f'dict(static=dict({STATIC}, cfg_options={BY_SITE}))'
    for split, image in dict(val=dict(id=0, site='a'), test=dict(id=0, file_name='0.jpg')).items():
        assert read(arms=arms)  # files that are not there yet the training names
        Path(f'{split}.json').write_text(json.dumps(dict(images=[image])))
    with pytest.raises(ValueError, match=r"test.json: every image must have the key 'site', image"):
        read(arms=arms)
    Path('test.json').write_text('{}')
    with pytest.raises(ValueError, match="test.json: KeyError: 'images'"):
        read(arms=arms)
