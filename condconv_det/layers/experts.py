"""What routed layers have in common: their weight is the kernels of several experts."""

from torch import Tensor, nn

from .expert_fans import expert_fans, mark_expert_axis
from .expert_start import keep_experts, start_experts
from .static_weights import load_kernel, load_router


class Experts(nn.Module):
    """Mixed in before a plain layer's class; its `router` comes after `make_experts`."""

    def make_experts(self, num_experts: int, init: str, activation: str) -> None:
        """Puts experts in the place of the plain layer's kernel, and starts them.

        Args:
            num_experts, init: see `CondConv2d`.
            activation: of whichever router mixes the experts.
        """
        self.num_experts, self.init, self.activation = num_experts, init, activation
        experts = self.weight.new_empty(num_experts, *self.weight.shape)
        self.weight = mark_expert_axis(nn.Parameter(experts))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with expert_fans():
            super().reset_parameters()
        if hasattr(self, 'init'):  # not yet while the plain layer is built
            start_experts(self)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        load_router(self.router, state_dict, prefix, expert_dim=self.weight.dim())
        load_kernel(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        mark_expert_axis(self.weight)  # may be another parameter, as in the methods below
        if prefix + 'weight' in state_dict:
            keep_experts(self)

    def _apply(self, fn, recurse: bool = True):
        """`fn` sees the experts as one convolution's, whose memory format it may change in vain."""

        def apply(tensor: Tensor) -> Tensor:
            if tensor.dim() != 5:
                return fn(tensor)
            return fn(tensor.flatten(0, 1)).contiguous().view(tensor.shape)

        super()._apply(apply, recurse)
        mark_expert_axis(self.weight)
        return self

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        mark_expert_axis(self.weight)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, num_experts={self.num_experts}'
