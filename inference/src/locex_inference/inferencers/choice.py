"""Which inferencer takes an artefact: the one that the options name, else the one that declares its format."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from locex.artefacts.formats import format_of, name_of
from locex.errors import InvalidConfiguration, InvalidModel, LocexError
from locex.plugins.catalog import Catalog
from locex.plugins.host import Host, Loaded


def choose(
    host: Host, catalog: Catalog, path: Path, named: str | None, among: Collection[str] | None = None
) -> Loaded | None:
    """Return the loaded plugin; None where those ``among`` which is chosen do not take the artefact.

    An inferencer's plugin declares what it takes in the class attribute ``formats``: names of
    `locex.artefacts.formats.format_of`, or endings of file names (".gguf"). Raise `InvalidModel` where no installed
    one does, `InvalidConfiguration` where several do.
    """
    if named is not None:
        return host.load(catalog.find("inferencer", named)) if among is None or named in among else None
    wanted = _names_of(path)
    fitting: list[Loaded] = []
    broken: list[str] = []
    for name in catalog.names("inferencer"):
        if among is not None and name not in among:
            continue
        try:
            loaded = host.load(catalog.find("inferencer", name))
        except LocexError as error:  # one broken plugin must not spoil the models of others
            broken.append(error.message)
            continue
        if wanted & {*getattr(loaded.instance, "formats", ())}:
            fitting.append(loaded)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(f"{one.entry.name!r} ({one.entry.origin})" for one in fitting)
        raise InvalidConfiguration(f"the artefact is taken by {names}", remedy="name one of them (inferencer)")
    if among is not None:
        return None
    raise _none_fits(path, catalog, broken)


def _names_of(path: Path) -> set[str]:
    with path.open("rb") as file:
        found = format_of(file)
    return {name for name in (found, path.suffix.lower()) if name}


def _none_fits(path: Path, catalog: Catalog, broken: list[str]) -> InvalidModel:
    with path.open("rb") as file:
        what = name_of(file)
    installed = ", ".join(catalog.names("inferencer")) or "none"
    reasons = f"; not loadable: {'; '.join(broken)}" if broken else ""
    return InvalidModel(
        f"the artefact is {what}, which no installed inferencer takes (installed: {installed}{reasons})",
        remedy="install the package of its inferencer, name one (inferencer), or export the model as ONNX",
    )
