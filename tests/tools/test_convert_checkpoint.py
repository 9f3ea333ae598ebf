import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from condconv_det.compat.checkpoints import load_from_local


def test_converts_compares_and_says_what_backbone_it_is(run_tool, tmp_path, capsys):
    source, dest = tmp_path / 'mobilenetv1_100.safetensors', tmp_path / 'out.pth'
    save_file(timm.create_model('mobilenetv1_100', pretrained=False).state_dict(), source)
    arguments = [source, dest, '--from', 'timm', '--arch', 'mobilenetv1_100', '--num-experts', 2]
    run_tool('convert_checkpoint.py', *arguments)
    out = capsys.readouterr().out
    assert 'largest difference from timm: ' in out and f'wrote {dest}' in out
    assert "'cond_cfg': {'num_experts': 2}" in out
    weights = load_from_local(str(dest))['state_dict']
    assert weights['backbone.layer5.1.pointwise_conv.conv.weight'].shape == (2, 1024, 1024, 1, 1)
    assert weights['head.fc.weight'].shape == (1000, 1024)


@pytest.mark.parametrize(
    'library, arch, says',
    [
        ('timm', 'resnet18', 'error: the checkpoint does not fit CondConvResNet'),
        ('timm', 'resnet', "error: timm has no network 'resnet' .*, resnet18, "),
        ('torchvision', 'mnasnet1_0', 'error: the checkpoint has layers of another network'),
    ],
)
def test_what_goes_wrong_is_one_line(library, arch, says, run_tool, tmp_path):
    source, dest = tmp_path / 'resnet.pth', tmp_path / 'out.pth'
    torch.save(torchvision.models.get_model('resnet34', weights=None).state_dict(), source)
    with pytest.raises(SystemExit, match=says):
        run_tool('convert_checkpoint.py', source, dest, '--from', library, '--arch', arch)
    assert not dest.exists()


@pytest.mark.parametrize(
    'arguments, says',
    [
        (['--from', 'condconv_det'], 'go together'),
        (['--from', 'timm', '--arch', 'resnet18', '--to-static'], 'go together'),
        (
            ['--from', 'timm', '--arch', 'resnet18', '--activation', 'softmax'],
            '--activation goes with --to-static',
        ),
        (['--from', 'timm'], '--from timm needs --arch'),
        (['--from', 'condconv_det', '--to-static', '--num-experts', 4], 'neither --arch nor'),
    ],
)
def test_options_that_do_not_go_together_are_named(arguments, says, run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool('convert_checkpoint.py', 'a.pth', 'b.pth', *arguments)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    'options', [['--from', 'condconv_det', '--to-static'], ['--from', 'timm', '--arch', 'resnet18']]
)
def test_a_checkpoint_is_not_written_over(options, run_tool, tmp_path):
    source, link = tmp_path / 'epoch_3.pth', tmp_path / 'link.pth'
    torch.save({'layer.weight': torch.ones(2, 4, 4, 1, 1)}, source)
    link.symlink_to(source)
    before = source.read_bytes()
    for dest in (source, link):
        with pytest.raises(SystemExit, match=f'error: {dest} would be written over {source}, from'):
            run_tool('convert_checkpoint.py', source, dest, *options)
    assert source.read_bytes() == before and link.is_symlink()
