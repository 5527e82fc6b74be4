"""The error of an optimizer of labelled demos for which no module has an example."""

from collections.abc import Sequence

from promptgrad.errors import DataError
from promptgrad.search import Session


def nothing_to_label(session: Session, kinds: Sequence[str]) -> DataError:
    """The error of a search for labelled demos that finds none, with the modules and what the examples have."""
    modules = [f"{place.path} ({place.signature})" for place in session.places(kinds)]
    return DataError(
        "no training example has the fields of a module with demos: a labelled demo needs every input of the module "
        f"and at least one of its outputs. The examples have {', '.join(session.train[0].keys())}; the modules are "
        f"{', '.join(modules)}. optim.BootstrapFewShot makes demos of the program's own runs"
    )
