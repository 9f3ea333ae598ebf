"""What a network costs and how it trained."""

from .cost import Cost, measure_cost

__all__ = ['Cost', 'measure_cost']
