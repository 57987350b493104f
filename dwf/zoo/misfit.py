"""Refuse, before anything is written, recipes that networks or data cannot follow."""

import torch
from torch.nn.modules.dropout import _DropoutNd

from dwf.datasets.dataset import Dataset
from dwf.datasets.known import input_shape, is_here, known
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.networks.config import NetworkConfig
from dwf.networks.cost import MISFITS
from dwf.networks.functional import build_network, has_batchnorm, is_stacked
from dwf.networks.initialisation import layer_parameters
from dwf.networks.sound import refuse_unsound, source_digest
from dwf.zoo.cohorts import dropout_layers, learnable, names_found, refuse_unbatched
from dwf.zoo.config import KeepSteps, ZooConfig
from dwf.zoo.facts import Sound
from dwf.zoo.layout import Layout
from dwf.zoo.zeros import prunable


def refuse_misfit(config: ZooConfig, given: Dataset | None = None) -> Sound | None:
    """Raise `ConfigError` where network, data and recipe do not fit each other.

    Two training images are run through the network, where its settings do not tell. A network that
    dwf did not write is tried in full, see `dwf.networks.sound`.

    Args:
        config: the settings.
        given: the images; default: those that the settings name.

    Returns:
        What the trial found out; None of dwf's own networks.
    """
    data = given or load_dataset(config.data)
    network = refuse_other_data(config.network, data, title=config.data.title)
    _refuse_recipe(config, data, network)
    _refuse_padding(config, data)
    _refuse_lone_image(config, data, network)
    found = find_sound(config, data)
    refuse_unbatched(config, data)
    return found


def refuse_foreseen(config: ZooConfig) -> None:
    """Raise `ConfigError` where the network does not take the data, as far as that is known now.

    Data that are not on this machine are not fetched: of those the settings alone are compared.
    """
    if is_here(config.data):
        refuse_other_data(config.network, load_dataset(config.data), title=config.data.title)
        return
    num_classes = len(config.data.classes or ()) or known(config.data).num_classes
    shape = input_shape(config.data)
    if said := config.network.misfit(config.data.title, shape, num_classes=num_classes):
        raise ConfigError(said)


def refuse_other_data(config: NetworkConfig, data: Dataset, *, title: str) -> torch.nn.Module:
    """Return a network of an architecture that takes the inputs of a dataset.

    Args:
        config: the architecture.
        data: the dataset.
        title: the same in words.

    Raises:
        ConfigError: its inputs or classes are not those of the data.
    """
    if said := config.misfit(title, data.shape, num_classes=data.num_classes):
        raise ConfigError(said)
    network = build_network(config)
    _refuse_outputs(config, data, title, network)
    return network


def find_sound(config: ZooConfig, data: Dataset, *, known: Sound | None = None) -> Sound | None:
    """Return what a trial finds out of a network that dwf did not write; None of its own.

    Args:
        config: the zoo's settings.
        data: its images.
        known: what an earlier trial found: the same source is not tried again.

    Raises:
        ConfigError: a row would not determine what the network computes.
    """
    if not config.network.is_foreign:
        return None
    found = Sound(source_digest(config.network, build_network(config.network)))
    if found != known:
        images = data.prepare(data.train.batch(torch.arange(min(8, len(data.train))))[0])
        kinds = config.vary.initialisation or (config.recipe.initialisation,)
        refuse_unsound(config.network, images, initialisations=kinds)
    return found


@torch.no_grad()
def _refuse_outputs(
    config: NetworkConfig, data: Dataset, title: str, network: torch.nn.Module
) -> None:
    images = data.prepare(data.train.batch(torch.arange(min(2, len(data.train))))[0])
    images = images.to(next(network.parameters(), images).device)  # of a plan: shapes alone
    shape, kind = list(images.shape[1:]), config.kind
    try:
        logits = network(images)
    except MISFITS as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"network.kind = {kind!r} does not take the images of {title}, of shape "
            f"{shape}: {reason}"
        ) from None
    found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    good = isinstance(found, list) and len(found) == 2 and found[0] == len(images)
    if not good or found[1] < data.num_classes:
        raise ConfigError(
            f"network.kind = {kind!r} returns {found} for {len(images)} images of {shape}: "
            f"{title} needs logits of shape [{len(images)}, {data.num_classes}] or more"
        )


def _refuse_recipe(config: ZooConfig, data: Dataset, network: torch.nn.Module) -> None:
    if config.recipe.augment and len(data.train.images.shape) != 4:
        raise ConfigError(f"recipe.augment: {config.data.title} has no images to change")
    if isinstance(config.keep, KeepSteps):
        names = learnable(network)
        if not names_found(names, config.keep.layers):
            raise ConfigError(
                f"keep.layers = {config.keep.layers!r} is found in no parameter; they are called "
                f"{', '.join(names)}, without what the network freezes"
            )
    _refuse_dropout(config, network)
    _refuse_pruning(config, network)
    _refuse_initialisation(config, network)


def _refuse_initialisation(config: ZooConfig, network: torch.nn.Module) -> None:
    if layer_parameters(network):
        return
    kinds = config.vary.initialisation or (config.recipe.initialisation,)
    scale = config.vary.initialisation_scale or config.recipe.initialisation_scale
    if set(kinds) != {"default"} or scale:
        said = "_scale" if scale else f" = {', '.join(kinds)}"
        raise ConfigError(
            f"recipe.initialisation{said} sets linear, convolution and attention layers, and this "
            f"network has none: it has {_tensors(network)}; leave it out"
        )


def _tensors(network: torch.nn.Module) -> str:
    every = [f"{name} {list(one.shape)}" for name, one in network.named_parameters()]
    return ", ".join(every)


def _refuse_pruning(config: ZooConfig, network: torch.nn.Module) -> None:
    if config.recipe.prune is None:
        return
    names = [entry.name for entry in prunable(Layout.of(network))]
    if not names:
        raise ConfigError(
            "recipe.prune takes weights of linear, convolutional and attention layers, which are "
            f"called `weight`, and this network has none: it has {_tensors(network)}; leave it out"
        )
    frozen = [name for name in names if name not in learnable(network)]
    if frozen:
        raise ConfigError(
            f"recipe.prune would change {', '.join(frozen)}, which the network freezes: leave it "
            "out, or let them learn"
        )


def _refuse_dropout(config: ZooConfig, network: torch.nn.Module) -> None:
    drops = config.recipe.dropout or config.vary.dropout
    if drops and not is_stacked(network):
        others = [
            f"{name} ({type(module).__name__})"
            for name, module in network.named_modules()
            if isinstance(module, _DropoutNd) and not isinstance(module, torch.nn.Dropout)
        ]
        if others:
            raise ConfigError(
                f"recipe.dropout sets layers of nn.Dropout alone, and the network has "
                f"{', '.join(others)}: leave it out, and give the rates to the network itself"
            )
        if not dropout_layers(network):
            raise ConfigError(
                f"recipe.dropout: the network (kind {config.network.kind!r}) has no dropout layers"
            )
    varied = config.vary.dropout is not None and not is_stacked(network)
    if varied and (config.cohort or 1) > 1:
        raise ConfigError(
            f"cohort = {config.cohort} with vary.dropout: networks of kind "
            f"{config.network.kind!r} are batched at one rate; give `cohort: 1`"
        )


def _refuse_padding(config: ZooConfig, data: Dataset) -> None:
    """A part that is cut out of an image and its border holds some of the image."""
    if config.recipe.augment is None:
        return
    most, side = max(config.vary.pad or (config.recipe.augment.pad,)), min(data.shape[1:])
    if most >= side:
        raise ConfigError(
            f"recipe.augment.pad = {most}: images of {config.data.title} have {side} pixels a "
            f"side, so that some would be black altogether; give less than {side}"
        )


@torch.no_grad()
def _refuse_lone_image(config: ZooConfig, data: Dataset, network: torch.nn.Module) -> None:
    """BatchNorm of one number a channel has no variance over a single image."""
    size, num = config.recipe.batch_size, len(data.train)
    if (num % size or min(size, num)) > 1 or not has_batchnorm(network):
        return
    try:
        network.train()(data.prepare(data.train.batch(torch.zeros(1, dtype=torch.long))[0]))
    except ValueError as error:
        raise ConfigError(
            f"recipe.batch_size = {size}: of {num} training images the last batch holds one, "
            f"too few for the network's BatchNorm ({error}); give another batch_size or "
            "data.train_images"
        ) from None
