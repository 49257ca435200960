"""``locex keys``: makes and shows keys of homomorphic encryption."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import ValidationError

from locex_privacy.homomorphic.keys import ENDINGS, exposure_of, pair_of, read_key, write_key
from locex_privacy.homomorphic.parameters import CkksParameters
from locex_privacy.homomorphic.settings import require_tenseal

_DEFAULTS = CkksParameters()


@click.group()
def keys() -> None:
    """Keys of homomorphic encryption, one pair for each federation."""


def _bits(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers like 54,54") from None


@keys.command()
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where the two files are written; the working directory unless given.",
)
@click.option("--poly-modulus-degree", type=int, default=_DEFAULTS.poly_modulus_degree, show_default=True, help="N.")
@click.option(
    "--coeff-mod-bit-sizes",
    default=",".join(map(str, _DEFAULTS.coeff_mod_bit_sizes)),
    show_default=True,
    callback=_bits,
    help="Bits of each prime of the modulus.",
)
@click.option("--scale-bits", type=int, default=_DEFAULTS.scale_bits, show_default=True, help="log2 of the scale.")
def new(
    name: str, folder: Path, poly_modulus_degree: int, coeff_mod_bit_sizes: tuple[int, ...], scale_bits: int
) -> None:
    """Make the key NAME: NAME.secret for the nodes, NAME.public for the collector. Nothing is overwritten."""
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise click.UsageError(f"{name!r} is no name: letters, digits, - and _ only")
    require_tenseal()
    from locex_privacy.homomorphic.ckks import new_contexts

    try:
        parameters = CkksParameters(
            poly_modulus_degree=poly_modulus_degree, coeff_mod_bit_sizes=coeff_mod_bit_sizes, scale_bits=scale_bits
        )
    except ValidationError as error:
        raise click.UsageError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = [folder / f"{name}{ENDINGS[secret]}" for secret in (True, False)]
    if there := [str(path) for path in paths if path.exists()]:
        raise click.ClickException(f"{' and '.join(there)} exist already: a key that is in use must not be lost")
    for path, key in zip(paths, pair_of(parameters, *new_contexts(parameters)), strict=True):
        write_key(path, key)
    click.echo(f"{paths[0]}: for every node (HM_SECRET_FILE), and for nobody else")
    click.echo(f"{paths[1]}: for the collector (HM_PUBLIC_FILE)")
    click.echo(f"key {key.key_id}")


@keys.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def show(file: Path) -> None:
    """Show a key file's id and parameters, and whether it holds the secret."""
    key = read_key(file, "FILE")
    click.echo(f"key {key.key_id}, {'SECRET: for nodes only' if key.secret else 'public half: for the collector'}")
    for name, value in key.parameters.model_dump(mode="json").items():
        click.echo(f"  {name}: {value}")
    click.echo(f"  values per ciphertext: {key.parameters.slots}")
    click.echo(f"  max|w|·examples·nodes must stay below: {key.parameters.bound:g}")
    if key.secret and (exposed := exposure_of(file)[0]):
        click.echo(f"warning: {exposed}", err=True)
