"""The id of a chat's answers. Its last digit tells how many there are, so that every server knows, whatever its log has kept."""

from __future__ import annotations

import re
import uuid

__all__ = ["ANSWER_ID", "MAX_ANSWERS", "new_id", "num_answers"]

MAX_ANSWERS = 16
"""What one hexadecimal digit can tell, one less."""
ANSWER_ID = re.compile(r"chatcmpl-[0-9a-f]{31}([0-9a-f])")


def new_id(num_answers: int) -> str:
    """An id that nobody had before, of 1 to 16 answers."""
    return f"chatcmpl-{uuid.uuid4().hex[:31]}{num_answers - 1:x}"


def num_answers(answer_id: str) -> int:
    """How many answers have this id; 0 where it is none of ours."""
    found = ANSWER_ID.fullmatch(answer_id)
    return int(found[1], 16) + 1 if found else 0
