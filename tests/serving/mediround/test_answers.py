"""What a client is told of a whole conversation."""

import hashlib
import json

import numpy as np
import pytest
from saymask.conversation_file import ConversationImage

from serving.mediround import answers
from serving.sessions.conversation import Conversation
from tests.serving.mediround.conversations import picture


@pytest.mark.parametrize("channels", [1, 3])
def test_a_client_can_tell_whose_picture_it_is(channels):
    image = picture(height=5, width=7)[:, :, :channels]  # a view: its bytes do not lie together
    conversation = Conversation(id="c", image=image, created_s=0.0)
    told = json.loads(answers.of_conversation(conversation).rounds)
    content = f"(5, 7, {channels})".encode() + bytes(int(value) for value in image.flat)
    assert told["size_hw"] == [5, 7]
    assert told["pixels_sha256"] == hashlib.sha256(content).hexdigest()
    assert (
        told["pixels_sha256"]
        == ConversationImage.of(np.ascontiguousarray(image)).saved.pixels_sha256
    )
