"""Compare the tensors of weight files with a model before anything is allocated for it, and check loaded ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from arkasr.errors import UserError
from arkasr.model.weight_files import check_loading_info

Shape = Sequence[int]


def check_tensors(
    model: PreTrainedModel,
    shapes: Mapping[str, Shape],
    place: str,
    key_mapping: dict[str, str] | None = None,
    any_shape: bool = False,
    name: Callable[[str], str] = str,
) -> None:
    """Check that weight files hold each tensor of a model exactly once and in the right shape.

    transformers allocates tensors that a file lacks, or has in another shape, in the size that config.json asks for.
    So a wrong number there could use up the memory before any comparison.

    Args:
        model: The model, on the meta device.
        shapes: Shapes of the tensors in the files, by their names in the files.
        place: Folder, for error messages.
        key_mapping: Patterns and replacements of names, see transformers.
        any_shape: Do not compare shapes.
        name: Maps a parameter's name to its name in the files, for error messages.

    Raises:
        UserError: A tensor is missing or has another shape, or two tensors map to one parameter, of which one would be
            ignored. The last happens, for example, if a file holds a tensor in two layouts.
    """
    state = model.state_dict()
    sources = _sources(model, shapes, place, key_mapping)
    mismatched = [
        (target, list(shapes[source]), list(state[target].shape))
        for target, source in sources.items()
        if target in state and list(shapes[source]) != list(state[target].shape)
    ]
    ignored = "|".join(model._keys_to_ignore_on_load_unexpected or ()) or r"(?!)"
    unexpected = [target for target in sources if target not in state and not re.search(ignored, target)]
    info: dict[str, Any] = {
        "missing_keys": [key for key in state if key not in sources and key not in model.all_tied_weights_keys],
        "mismatched_keys": [] if any_shape else mismatched,
        "unexpected_keys": unexpected,
        "error_msgs": [],
    }
    if info["missing_keys"] or info["mismatched_keys"]:  # unexpected tensors alone take no memory
        check_loading_info(place, info, name)


def check_finite(place: str, model: PreTrainedModel) -> None:
    """Check that no weight is NaN or infinite.

    Args:
        place: Folder or Hub id, for the error message.
        model: The model.

    Raises:
        UserError: A weight is NaN or infinite. The message names its tensor.
    """
    for name, weight in model.named_parameters():
        if weight.numel() and not all(value.isfinite() for value in weight.detach().aminmax()):  # keeps NaN
            raise UserError(
                f"{place}: {name} holds NaN or infinite values as {str(weight.dtype).removeprefix('torch.')}; use an "
                "earlier checkpoint or export the model again"
            )


def _sources(
    model: PreTrainedModel, names: Mapping[str, Shape], place: str, key_mapping: dict[str, str] | None
) -> dict[str, str]:
    """Return the name in the files of each parameter."""
    rules, known = get_model_conversion_mapping(model, key_mapping), model.state_dict()
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    sources: dict[str, str] = {}
    for source in names:
        target, _ = rename_source_key(source, renamings, converters, model.base_model_prefix, known)
        if target in sources:
            raise UserError(
                f"{place}: {sources[target]} and {source} both map to parameter {target}; export the model again"
            )
        sources[target] = source
    return sources
