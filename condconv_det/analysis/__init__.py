"""What a network costs, how it trained and how it routes."""

from .configs import read_config
from .cost import Cost, image_size, measure_config, measure_cost

__all__ = ['Cost', 'image_size', 'measure_config', 'measure_cost', 'read_config']
