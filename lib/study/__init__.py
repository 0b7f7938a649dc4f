"""What was chosen, the files and models that follow from it, where results go; users' own rows.

May import: maps, networks, people, base.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "choices": ["Choices"],
    "comparisons": ["COMPARISONS", "Comparison", "forms_of", "groups_of"],
    "exhibits": ["Exhibit", "Looks", "evidence_titles", "exhibit", "held_out", "looks",
        "image_titles"],
    "explaining": ["explain"],
    "extension": ["ExtensionError", "load_extension"],
    "inputs": ["Inputs", "MissingInputs"],
    "outputs": ["provenance", "saved_provenance", "save_table", "write_result"],
    "own_rows": ["add_comparison", "add_method", "add_model"],
    "places": ["Places"],
    "profiles": ["PROFILES", "Profile", "TARGETS"],
    "study": ["Study"],
})  # fmt: skip
