"""Door: `import lib.timm_variants` puts the converted networks into timm's registry."""

import lib.networks.timm_variants  # noqa: F401
