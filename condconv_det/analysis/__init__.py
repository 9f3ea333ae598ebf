"""What a network costs and how it trained."""

from .cost import Cost, image_size, measure_config, measure_cost

__all__ = ['Cost', 'image_size', 'measure_config', 'measure_cost']
