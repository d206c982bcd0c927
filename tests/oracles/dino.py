"""DINO, Caron et al., arXiv 2104.14294, equation 3 (multi-crop) and equation 4 (centre)."""

from __future__ import annotations

import numpy as np

from oracles import basics

EMBEDDINGS = ("student", "teacher")
STOPPED = ("teacher", "centre")
SHARDED = {"student": 1, "teacher": 1}
OPTIONS = ({}, {"student_temperature": 0.3, "teacher_temperature": 0.1, "centre_momentum": 0.6})


def shifted_teacher(random: np.random.Generator, arguments: basics.Arguments) -> basics.Arguments:
    """A shift of every column that the centre follows."""
    shift = random.normal(size=arguments["centre"].shape)
    return arguments | {name: arguments[name] + shift for name in ("teacher", "centre")}


INVARIANCES = {
    "order of images": basics.other_order_of_images(SHARDED),
    "order of views": basics.other_order_of_views("student", "teacher"),
    "order of columns": basics.other_order_of_columns("student", "teacher", "centre"),
    "shift of a student's row": basics.shifted_rows("student"),
    "shift of a teacher's row": basics.shifted_rows("teacher"),
    "shift of teacher and centre": shifted_teacher,
}


def case(random: np.random.Generator, views: int, images: int, width: int) -> basics.Arguments:
    student = 0.3 * basics.related_views(random, views, images, width)
    return {"student": student, "teacher": basics.some_targets(random, student), "centre": random.normal(size=width)}


def loss(
    student: np.ndarray,
    teacher: np.ndarray,
    centre: np.ndarray,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    centre_momentum: float = 0.9,
) -> dict[str, float]:
    losses = []
    for u, g in basics.crossed_pairs(len(student), len(teacher)):
        for wanted, given in zip(teacher[g], student[u], strict=True):
            probabilities = np.exp(basics.log_softmax((wanted - centre) / teacher_temperature))
            losses.append(-basics.dot(probabilities, basics.log_softmax(given / student_temperature)))
    return {"distillation": basics.mean(losses)}


def state(
    student: np.ndarray, teacher: np.ndarray, centre: np.ndarray, *, centre_momentum: float = 0.9, **options: float
) -> dict[str, np.ndarray]:
    rows = [row for view in teacher for row in view]
    return {"centre": centre_momentum * centre + (1 - centre_momentum) * sum(rows) / len(rows)}
