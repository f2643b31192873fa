from lpdirs.base.compute import keep_memory

keep_memory()  # whoever works with models computes with large tensors, step after step
