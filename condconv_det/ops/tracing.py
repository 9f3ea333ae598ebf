"""Whether somebody writes down what is computed, to compute it again for other batches."""

import torch


def is_compiling() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace writes this call down."""
    # torch 2.1 cannot tell, nor trace the choice: its compiler leaves these layers as they are
    compiler = torch.compiler
    return is_exporting() or (hasattr(compiler, 'is_compiling') and compiler.is_compiling())


def is_exporting() -> bool:
    """Whether torch.export or torch.jit.trace does."""
    compiler = torch.compiler
    return torch.jit.is_tracing() or (hasattr(compiler, 'is_exporting') and compiler.is_exporting())
