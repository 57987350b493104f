"""Codecs that are fitted to networks of several layouts, each with arrays of its own."""

import json
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes
from dwf.errors import ShapeMismatch
from dwf.files import parse_json
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

    def _keep_layouts(self) -> None:
        """Put the layouts among the arrays, where there are several."""
        if len(self.layouts) > 1:
            text = json.dumps([layout.to_json() for layout in self.layouts.values()])
            self.arrays["layouts"] = np.array(text)

    def _kept_layouts(self) -> Sequence[Layout]:
        """Return what `_keep_layouts` kept: the layouts, or the only one."""
        if "layouts" not in self.arrays:
            return [self.layout]
        told = parse_json(str(self.arrays["layouts"]), "layouts", of=list)
        return [Layout.from_json(each) for each in told]

    def _name(self, name: str, digest: str) -> str:
        """Return the name of an array of one layout; the first's are as other codecs'."""
        return name if digest == self.layout.digest else f"{digest}_{name}"

    def _refuse_other(self, digest: str) -> None:
        if digest not in self.layouts:
            raise ShapeMismatch(
                f"the networks have layout {digest}, this codec was fitted to "
                f"{', '.join(self.layouts)}: {self.cure}"
            )


def refuse_other_kind(codes: Codes, layout: Layout) -> None:
    """Refuse codes that are not all of networks of a layout; raises `ShapeMismatch`."""
    if not codes.shape.is_mixed:
        return
    layouts = codes.shape.layouts
    others = codes.kind_N[codes.kind_N != layouts.index(layout.digest)]
    if len(others):
        raise ShapeMismatch(
            f"{len(others)} of {len(codes)} codes are of networks of another layout than "
            f"{layout.digest}, first {layouts[int(others[0])]}: decode those of each layout "
            "by themselves (`Codes.take`)"
        )
