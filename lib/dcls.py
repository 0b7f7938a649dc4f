"""Door to the conversion: `from lib.dcls import convert_to_dcls, fold_dcls`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(f"{__package__}.networks", submod_attrs={
    "dcls": ["KernelBuilder", "clamp_positions", "convert_to_dcls", "dcls_layers", "dense_kernel",
        "fold_dcls", "replaced_layers", "use_fast_kernels"],
    "backbones": ["DclsRecipe"],
})  # fmt: skip
