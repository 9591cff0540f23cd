"""Opens the model that the settings describe: found by its spec, with what the settings put around it."""

from __future__ import annotations

from infertool.models import loader
from infertool.models.port import LoadedModel
from infertool.settings.tree import ModelSettings
from infertool.units import parse_capacity


def open_model(settings: ModelSettings) -> LoadedModel:
    """Build the model of `settings`; `loader.warm_up` is a step of its own. Raises `ModelLoadError`."""
    model = loader.load(settings.spec)
    if not settings.cache:
        return model
    from infertool.models.cache import cached  # noqa: PLC0415  (few use it)

    entries, ttl_s = parse_capacity(settings.cache)
    return cached(model, entries=entries, ttl_s=ttl_s, ignore=settings.cache_ignore)
