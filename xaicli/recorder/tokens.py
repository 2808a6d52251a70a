"""What the token ids of kept inputs stand for, so that a map of a text can be read without its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

_IDS = "input_ids"
_BROKEN = "\ufffd"
"""What decoding makes of a part of a character."""

TextOf = Callable[[int], str | None]


def words_of_inputs(tokens: Any, arrays: Mapping[str, NDArray[Any]]) -> dict[str, list[Words]]:
    """The words of each sample, by the inputs whose tokens they are.

    Args:
        tokens: A tokenizer, a vocabulary ({id: text}, {text: id} or texts in the order of their ids), or the texts of
            each sample's tokens; by the input's name where several inputs could be meant.
        arrays: The inputs by name, (sample, ...).

    Raises:
        ValueError: They are none of these, or do not fit the inputs.
    """
    if isinstance(tokens, Mapping) and tokens and all(name in arrays for name in tokens):
        return {name: _of_input(one, arrays[name], name) for name, one in tokens.items()}
    whole = [name for name, array in arrays.items() if array.dtype.kind in "iu" and array.ndim == 2]
    name = _IDS if _IDS in whole else whole[0] if len(whole) == 1 else None
    if name is None:
        several = ", ".join(whole) or "none"
        raise ValueError(f"tokens are of an input of whole numbers, (samples, tokens): {several}; tokens={{name: ...}}")
    return {name: _of_input(tokens, arrays[name], name)}


Words = tuple[list[str | None], list[int] | None]
"""The text of each token, None where it is not known, and the places of special ones, None where these are not."""


def _of_input(tokens: Any, array: NDArray[Any], name: str) -> list[Words]:
    if array.dtype.kind not in "iu" or array.ndim != 2:
        raise ValueError(f"tokens of {name or 'inputs'} need whole numbers, (samples, tokens), not {array.shape}")
    rows = array.tolist()
    if _are_texts_of_each(tokens):
        if [len(texts) for texts in tokens] != [len(row) for row in rows]:
            raise ValueError(f"tokens has {_sizes(tokens)} texts for {_sizes(rows)} tokens of {name or 'inputs'}")
        return [([None if text is None else str(text) for text in texts], None) for texts in tokens]
    text_of, special = _reader(tokens)
    known = {number: text_of(number) for row in rows for number in row if row}
    if rows and known and all(text is None for text in known.values()):
        raise ValueError("tokens knows none of the ids")
    return [
        ([known[n] for n in row], None if special is None else [i for i, n in enumerate(row) if n in special])
        for row in rows
    ]


def _are_texts_of_each(tokens: Any) -> bool:
    return isinstance(tokens, list | tuple) and bool(tokens) and all(isinstance(one, list | tuple) for one in tokens)


def _sizes(rows: Sequence[Sequence[Any]]) -> str:
    sizes = sorted({len(row) for row in rows})
    return f"{len(rows)} x {sizes[0]}" if len(sizes) == 1 else f"{len(rows)} x {sizes[0]} to {sizes[-1]}"


def _reader(tokens: Any) -> tuple[TextOf, Collection[int] | None]:
    """What tells the text of an id, and which ids are special, where that is known.

    Raises:
        ValueError: It is neither a tokenizer nor a vocabulary.
    """
    if hasattr(tokens, "convert_ids_to_tokens"):
        return _of_tokenizer(tokens), frozenset(getattr(tokens, "all_special_ids", ()))
    if callable(getattr(tokens, "id_to_token", None)):  # of the library tokenizers
        added: Any = getattr(tokens, "get_added_tokens_decoder", dict)()
        return tokens.id_to_token, frozenset(n for n, one in added.items() if getattr(one, "special", False))
    if callable(getattr(tokens, "get_itos", None)):  # of torchtext
        tokens = tokens.get_itos()
    if isinstance(tokens, Mapping):
        if tokens and all(isinstance(text, str) and isinstance(n, int) for text, n in tokens.items()):
            tokens = {n: text for text, n in tokens.items()}
        if all(isinstance(n, int) and isinstance(text, str) for n, text in tokens.items()):
            return dict(tokens).get, None
    elif isinstance(tokens, list | tuple) and all(isinstance(text, str) for text in tokens):
        texts = list(tokens)
        return lambda number: texts[number] if 0 <= number < len(texts) else None, None
    raise ValueError(
        f"tokens is a {type(tokens).__name__}, and no tokenizer, vocabulary or lists of the samples' texts"
    )


def _of_tokenizer(tokenizer: Any) -> TextOf:
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else None

    def text(number: int) -> str | None:
        """As people read it, where the token is whole characters; else as the tokenizer spells it."""
        if number < 0 or (size is not None and number >= size):
            return None
        spelled = tokenizer.convert_ids_to_tokens(number)
        read = str(tokenizer.decode([number])) if hasattr(tokenizer, "decode") else ""
        return read if read.strip() and _BROKEN not in read else None if spelled is None else str(spelled)

    return text
