"""Codecs that are fitted to networks of several layouts, each with arrays of its own."""

from typing import ClassVar

from dwf.codecs.codec import Codec
from dwf.errors import ShapeMismatch
from dwf.zoo.layout import Layout


class SeveralLayouts(Codec):
    """Base of codecs of several layouts, of which `layout` is the first."""

    layouts: dict[str, Layout]
    """Digest -> layout, in the order of the zoos."""
    cure: ClassVar[str]
    """Advice on networks of another layout, for an error."""

    def layout_of(self, digest: str) -> Layout:
        """Return the layout of a digest, one of those that it was fitted to; see the base."""
        self._refuse_other(digest)
        return self.layouts[digest]

    def _name(self, name: str, digest: str) -> str:
        """Return the name of an array of one layout; the first's are as other codecs'."""
        return name if digest == self.layout.digest else f"{digest}_{name}"

    def _refuse_other(self, digest: str) -> None:
        if digest not in self.layouts:
            raise ShapeMismatch(
                f"the networks have layout {digest}, this codec was fitted to "
                f"{', '.join(self.layouts)}: {self.cure}"
            )
