"""What a suite needs from the data folder: prompt sets and real images that never ship."""

from __future__ import annotations

from conceptbench.core.manifests import load_prompts, names_in
from conceptbench.core.protocols import every_metric
from conceptbench.core.schemas import Suite
from conceptbench.engine.reference_folders import ReferenceFolder, folder_reference


def foreign_sets(suite: Suite) -> list[str]:
    """Names of the prompt sets of a suite's tasks that never ship, each once."""
    foreign = names_in("sources")
    return [name for name in dict.fromkeys(t.prompts.set for t in suite.tasks) if name in foreign]


def reference_folders(suite: Suite) -> list[tuple[ReferenceFolder, int | None]]:
    """The folders of real images that a suite's metrics compare with, each once with how many images are asked for."""
    asked = ((m.options.get("beside"), m.options.get("n")) for m in every_metric(suite.metrics))
    return list(dict.fromkeys((own, n) for name, n in asked if isinstance(name, str) and (own := folder_reference(name)) is not None))


def check_data(suite: Suite) -> None:
    """Refuses a suite whose prompts or real images are not here, before a base of gigabytes is fetched or loaded.

    Raises:
        UserInputError: something is missing or another file; with the command that gets it.
    """
    for name in foreign_sets(suite):
        load_prompts(name)
    for folder, n in reference_folders(suite):
        folder.check(n)
