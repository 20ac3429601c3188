"""Features of a frozen encoder as they come back from a disk."""

from collections.abc import Sequence
from typing import Any

from smallbatch.errors import UserError
from smallbatch.notation import Text
from smallbatch.text.encoder import TextEncoder
from smallbatch.text.storage import STORAGES


class Stored(TextEncoder):
    """What `encoder` hears, after `storage`: float16, int8 or pooled. A network hears prompts as it heard captions."""

    def __init__(self, encoder: TextEncoder, storage: str):
        if storage not in STORAGES:
            raise UserError(f"{storage=} of texts is not known: use one of {', '.join(STORAGES)}")
        self.encoder, self.storage = encoder, storage
        self.spec = STORAGES[storage].spec(encoder.spec)

    def tokens(self, captions: Sequence[str]) -> Text:
        return self.encoder.tokens(captions)

    def features(self, tokens: Text) -> Text:
        """Of features that were read, themselves."""
        if tokens.value.is_floating_point():
            return tokens
        storage, heard = STORAGES[self.storage], self.encoder.features(tokens)
        return storage.unpack(storage.pack(*heard)).to(heard.value.device)

    def misfits(self, captions: Sequence[str]) -> list[str]:
        return self.encoder.misfits(captions)

    def described(self) -> dict[str, Any]:
        target = f"{type(self).__module__}.{type(self).__name__}"
        return {"_target_": target, "encoder": self.encoder.described(), "storage": self.storage}
