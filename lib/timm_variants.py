"""Door: `import lib.timm_variants` puts the converted networks into timm's registry."""

from .networks import timm_variants  # noqa: F401
