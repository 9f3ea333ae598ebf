"""Whether somebody writes down what is computed, to compute it again for other batches."""

import torch


def is_compiling() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace writes this call down."""
    # torch 2.1 and 2.2 cannot tell; up to 2.3 no compiler traces the choice of a kernel whole
    compiler = torch.compiler
    return is_exporting() or (hasattr(compiler, 'is_compiling') and compiler.is_compiling())


def is_exporting() -> bool:
    """Whether torch.export or torch.jit.trace does."""
    compiler = torch.compiler
    return torch.jit.is_tracing() or (hasattr(compiler, 'is_exporting') and compiler.is_exporting())
