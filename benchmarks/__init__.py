"""Speed and memory, side by side with what a user would pick instead."""

import os

# Read when torch is imported; or its profiler reports each of its own stages.
os.environ.setdefault('KINETO_LOG_LEVEL', '99')
