import pytest

from condconv_det.layers import CondCfg


def parse(cond_cfg):
    return CondCfg.parse(cond_cfg, num_blocks=13, default_start=7)


def test_none_is_the_static_network():
    assert parse(None) is None


def test_only_num_experts_is_needed():
    assert parse(dict(num_experts=8)) == CondCfg(8, start=7, share='layer')


@pytest.mark.parametrize(
    'cond_cfg, says',
    [
        (dict(num_experts=0), 'num_experts must be an integer of at least 1, got 0'),
        (dict(num_experts='8'), "num_experts .* got '8'"),
        (dict(num_experts=4.0), 'num_experts .* got 4.0'),
        (dict(), r"cond_cfg lacks \['num_experts'\]"),
        (dict(num_experts=4, experts=8), r"cond_cfg has unknown keys \['experts'\]; .*'share'"),
        (dict(num_experts=4, start=14), 'start must be the number of a block, 1 to 13, got 14'),
        (dict(num_experts=4, start=0), 'start .* got 0'),
        (dict(num_experts=4, share='stage'), "share must be one of .* got 'stage'"),
        (
            dict(num_experts=4, routing=dict(temp=3)),
            r"cond_cfg.routing has unknown keys \['temp'\]; .*'temperature'",
        ),
    ],
)
def test_bad_keys_and_values_are_named(cond_cfg, says):
    with pytest.raises(ValueError, match=says):
        parse(cond_cfg)
