"""Fit a generator to a zoo and report what its codec loses."""

import numpy as np

from dwf.codecs.codec import Codec
from dwf.codecs.config import FlatConfig, PcaConfig
from dwf.densities.config import GaussianConfig
from dwf.evaluation.config import ReconstructionConfig
from dwf.evaluation.reconstruction import report_reconstruction
from dwf.evaluation.report.reconstruction import Reconstruction
from dwf.generators.config import GeneratorConfig
from dwf.generators.stage import fit_generator
from dwf.zoo.store import Zoo, write_zoo

LOSSY, EXACT = PcaConfig(components=5), FlatConfig(standardise="none")


def root_of(zoo):
    return zoo.path.parent.parent


def fit(zoo, codec=LOSSY, *codec_zoos) -> Codec:
    names = {"zoo": zoo.name, "codec_zoos": codec_zoos}
    config = GeneratorConfig(**names, codec=codec, density=GaussianConfig(), gate=None)
    return fit_generator(config, root_of(zoo), name="g").codec


def report(of, **settings) -> Reconstruction:
    return report_reconstruction(root_of(of), "g", config=ReconstructionConfig(**settings))


def folder_of(zoo):
    return root_of(zoo) / "reports" / "g-reconstruction"


def of_splits(zoo, name, splits) -> Zoo:
    keep = np.isin(zoo.columns["split"], splits)
    columns = {k: v[keep] for k, v in zoo.columns.items() if k != "checksum"}
    block = (columns, zoo.read(np.flatnonzero(keep)))
    return write_zoo(zoo.path.parent / name, zoo.facts, num_rows=int(keep.sum()), blocks=[block])
