"""How heads that can be routed start."""

from mmengine.model import BaseModule, PretrainedInit

from condconv_det.layers.expert_start import expert_samples, start_changed_experts

PRETRAINED = ('Pretrained', PretrainedInit)


class RoutedHead(BaseModule):
    """Starts a head once; mixed in before the static head's class.

    Weights of an `init_cfg` of type 'Pretrained' and those of an earlier start stay as they are.
    """

    def init_weights(self) -> None:
        init_cfgs = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or ()
        if self.is_init or any(cfg['type'] in PRETRAINED for cfg in init_cfgs):
            BaseModule.init_weights(self)  # without what the static head does after it
            return
        before = expert_samples(self)
        super().init_weights()
        start_changed_experts(self, before)
        self.finish_start()

    def finish_start(self) -> None:
        """What is left to do after the initialisers of mmdet's head, which do not know experts."""
