"""The groups of images that result rows are made of: what is erased, kept, brought back and never told of, each by itself.

For metrics a concept is a target or retained; what is brought back, and what no eraser was told of, is measured as retained. Their
rows have roles of their own, because a mean over what must stay and what may fall would say nothing of either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conceptbench.core.results import RowRole
from conceptbench.core.schemas import Role, Task
from conceptbench.engine.images import ImageSpec

ALL = "*"
ROLES: tuple[RowRole, ...] = ("target", "retained", "restored", "unseen")
"""Of rows about concepts, in the order in which they are shown."""


@dataclass(frozen=True)
class Group:
    """Images of one role, of one concept or of all: (position among the metric's images, image)."""

    role: RowRole
    concept: str
    images: list[tuple[int, ImageSpec]]

    @property
    def asked(self) -> Role:
        """What metrics are told of its concepts."""
        return asked_role(self.role)


def concepts_by_role(task: Task) -> dict[RowRole, tuple[str, ...]]:
    """The concepts of each row role, in the task's order."""
    return {"target": task.erased, "retained": task.retained, "restored": task.restored, "unseen": task.unseen}


def row_roles(task: Task) -> dict[str, RowRole]:
    """Concept -> role of its rows."""
    return {name: role for role, names in concepts_by_role(task).items() for name in names}


def asked_role(role: RowRole) -> Role:
    """What a metric is told of concepts of this role."""
    return "target" if role == "target" else "retained"


def role_of(spec: ImageSpec, roles: Mapping[str, RowRole]) -> RowRole:
    """The role of an image's rows: its concept's (:func:`row_roles`), or what metrics are told where a task names none."""
    return roles.get(spec.concept, spec.role)


def group_of(chosen: Sequence[ImageSpec], roles: Mapping[str, RowRole], role: RowRole, concept: str = ALL) -> Group:
    """The images of a role, and of a concept if one is named."""
    return Group(role, concept, [(j, s) for j, s in enumerate(chosen) if role_of(s, roles) == role and concept in (ALL, s.concept)])


def groups_of(chosen: Sequence[ImageSpec], roles: Mapping[str, RowRole]) -> list[Group]:
    """For each role that has images all of them, then those of each concept."""
    found = []
    for role in ROLES:
        whole = group_of(chosen, roles, role)
        names = dict.fromkeys(s.concept for _, s in whole.images)
        found += [whole, *(Group(role, name, [(j, s) for j, s in whole.images if s.concept == name]) for name in names)] if names else []
    return found
