"""What a fine-tuned network says of the probe that judged labels, in numbers (`label_errors`) and here in words.

Apart, because the report says it without what trains.
"""

from __future__ import annotations

from typing import Any

from headstart.errors import counted

# Of fewer labels that the probe doubts, what share is right says nothing of others.
_DOUBTS_TO_JUDGE = 5


def likely_right(opinion: dict[str, Any] | None) -> int:
    """Return how many of the training photos that are named are likely labelled rightly; 0 where too little tells it.

    As large a share as the network confirms of the labels that the probe doubts where the network can be asked.
    """
    if opinion is None or opinion["doubted"] < _DOUBTS_TO_JUDGE:
        return 0
    return round(opinion["training"] * opinion["confirmed"] / opinion["doubted"])


def opinion_text(opinion: dict[str, Any]) -> str:
    """Say in plain words how far to trust what the probe says of training photos."""
    probe, network = (f"{1 - opinion[f'{judge}_accuracy']:.0%}" for judge in ("probe", "network"))
    told = (
        "The training photos were judged by a probe on frozen features, because the fine-tuned network has learnt "
        f"their labels. The probe errs more often here: it contradicts {probe} of the labels of "
        f"{counted(opinion['photos'], 'validation and test photo')}, the network {network}."
    )
    if opinion["doubted"]:
        told += f" Of {counted(opinion['doubted'], 'label')} there that the probe doubts, the network confirms "
        told += f"{opinion['confirmed']:,}."
    if right := likely_right(opinion):
        told += f" So of the {counted(opinion['training'], 'training photo')} named, about {right:,} "
        told += f"{'is' if right == 1 else 'are'} likely labelled rightly."
    return told
