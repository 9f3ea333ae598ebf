import pytest

from condconv_det.layers import CondCfg
from condconv_det.layers.cond_cfg import parse_head_cond_cfg


def parse(cond_cfg, num_blocks=13):
    return CondCfg.parse(cond_cfg, num_blocks, default_start=7, default_share='layer')


def test_none_is_the_static_network():
    assert parse(None) is None


def test_only_num_experts_is_needed():
    assert parse(dict(num_experts=8)) == CondCfg(8, start=7, share='layer')


@pytest.mark.parametrize(
    'num_blocks, start', [(13, 7), (8, 7), (7, 7), (6, 4), (4, 2), (3, 1), (2, 1), (1, 1)]
)
def test_of_a_network_that_ends_before_its_default_start_the_last_three_blocks_are_routed(
    num_blocks, start
):
    assert parse(dict(num_experts=8), num_blocks).start == start


def test_where_there_is_no_block_there_is_nothing_to_route():
    with pytest.raises(ValueError, match="out_indices needs no block .* got {'num_experts': 8}"):
        parse(dict(num_experts=8), num_blocks=0)
    assert parse(None, num_blocks=0) is None


@pytest.mark.parametrize(
    'cond_cfg, says',
    [
        (dict(num_experts=0), 'num_experts must be an integer of at least 1, got 0'),
        (dict(num_experts='8'), "num_experts .* got '8'"),
        (dict(num_experts=4.0), 'num_experts .* got 4.0'),
        (dict(), r"cond_cfg lacks \['num_experts'\]"),
        (dict(num_experts=4, experts=8), r"cond_cfg has unknown keys \['experts'\]; .*'share'"),
        (8, r"cond_cfg must be a dict of \['init', .*'start'\], got 8"),
        (dict(num_experts=4, routing=None), 'cond_cfg.routing must be a dict of .* got None'),
        (dict(num_experts=4, start=14), 'start must be the number of a block .*, 1 to 13, got 14'),
        (dict(num_experts=4, start=0), 'start .* got 0'),
        (dict(num_experts=4, share='stage'), "share must be one of .* got 'stage'"),
        (
            dict(num_experts=4, routing=dict(temp=3)),
            r"cond_cfg.routing has unknown keys \['temp'\]; .*'temperature'",
        ),
        (
            dict(num_experts=4, share='network', routing=dict(hierarchical=True)),
            "hierarchical routing needs several routers, share='network' has one",
        ),
    ],
)
def test_bad_keys_and_values_are_named(cond_cfg, says):
    with pytest.raises(ValueError, match=says):
        parse(cond_cfg)


@pytest.mark.parametrize(
    'cond_cfg, says',
    [
        (dict(num_experts=0), 'num_experts must be an integer of at least 1, got 0'),
        (dict(), r"cond_cfg lacks \['num_experts'\]"),
        (dict(num_experts=4, start=2), r"cond_cfg has unknown keys \['start'\]"),
        (dict(num_experts=4, routing=dict(temp=3)), r"unknown keys \['temp'\]"),
        (dict(num_experts=4, routing=None), 'cond_cfg.routing must be a dict of .* got None'),
        (dict(num_experts=4, routing=dict(hierarchical=True)), 'hierarchical .* not for heads'),
    ],
)
def test_bad_keys_and_values_of_a_head_are_named(cond_cfg, says):
    with pytest.raises(ValueError, match=says):
        parse_head_cond_cfg(cond_cfg)


def test_a_head_without_cond_cfg_is_static():
    assert parse_head_cond_cfg(None) is None
