"""The pipeline's stages.

Python's garbage collector looks for cycles whenever 700 more objects are alive. `import torch` makes some hundred
thousands that stay, and spends a quarter of its time on being looked through; hence 100,000.
"""

import gc

gc.set_threshold(100_000)
