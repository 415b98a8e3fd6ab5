"""Random sequences of ask, undo, branch, correct and resume, on two servers with one store.

Beside the pipeline a plain model of each conversation is kept: what was asked, and what it referred
to. At the end of every sequence the released loop computes all masks anew from that.
"""

import json
from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from serving.errors import Unavailable
from tests.serving.mediround.conversations import (
    Asked,
    masks_of,
    picture,
    released_loop,
    send,
    server,
    store,
)

TEXTS = ["segment the liver", "outline the spleen and the stomach", "segment the organ below"]


@dataclass
class Talk:
    """What is known of one conversation."""

    image: np.ndarray
    seen_by: int
    """The server that answered last."""
    asked: list = field(default_factory=list)
    """One `Asked` for each round."""
    firsts: list = field(default_factory=list)
    """Number of the first instance of each round."""
    turns: dict = field(default_factory=dict)
    """turn_id -> (round, its masks)."""

    @property
    def instances(self):
        return sum(len(one.texts) for one in self.asked)


class Conversations(RuleBasedStateMachine):
    names = Bundle("names")

    @initialize(target=names, seed=st.integers(0, 3))
    def two_servers(self, seed):
        shared = store()
        self.servers = [server(shared), server(shared)]
        self.talks = {}
        self.count = 0
        return self.begin(seed, 0, 0)

    def send(self, name, at, **given):
        """A request as a client sends it: a start that resumes where another server was last."""
        talk = self.talks[name]
        moved = {} if at == talk.seen_by else {"start": True, "resume": True}
        answer = send(self.servers[at], name, **moved, **given)
        talk.seen_by = at
        return answer

    def note(self, name, answer, asked, turn_id):
        talk = self.talks[name]
        talk.firsts.append(talk.instances + 1)
        talk.asked.append(asked)
        talk.turns[turn_id] = (len(talk.asked), answer["masks"])
        assert answer["round"] == len(talk.asked)
        first = talk.firsts[-1]
        assert answer["instances"].tolist() == list(range(first, first + len(asked.texts)))

    @rule(target=names, seed=st.integers(0, 3), at=st.integers(0, 1), text=st.integers(0, 2))
    def begin(self, seed, at, text):
        self.count += 1
        name, turn_id = f"c{self.count}", f"t{self.count}"
        self.talks[name] = Talk(picture(seed), at)
        answer = send(
            self.servers[at],
            name,
            start=True,
            image=self.talks[name].image,
            prompt=TEXTS[text],
            turn_id=turn_id,
        )
        self.note(name, answer, Asked(_texts(text)), turn_id)
        return name

    @rule(name=names, at=st.integers(0, 1), text=st.integers(0, 2), data=st.data())
    def ask(self, name, at, text, data):
        talk = self.talks[name]
        numbers = st.integers(1, max(1, talk.instances))
        references = data.draw(st.lists(numbers, unique=True, max_size=min(3, talk.instances)))
        self.count += 1
        given = {"reference_instances": references} if references else {}
        answer = self.send(name, at, prompt=TEXTS[text], turn_id=f"t{self.count}", **given)
        assert answer["references"][:, 1].tolist() == references
        self.note(name, answer, Asked(_texts(text), references), f"t{self.count}")

    @rule(name=names, at=st.integers(0, 1), data=st.data())
    def ask_again(self, name, at, data):
        talk = self.talks[name]
        if not talk.turns:
            return
        turn_id = data.draw(st.sampled_from(sorted(talk.turns)))
        number, masks = talk.turns[turn_id]
        answer = self.send(name, at, prompt="whatever it was", turn_id=turn_id)
        assert answer["round"] == number
        np.testing.assert_array_equal(answer["masks"], masks)

    @rule(name=names, at=st.integers(0, 1), data=st.data())
    def undo(self, name, at, data):
        talk = self.talks[name]
        last = data.draw(st.integers(0, len(talk.asked)))
        self.send(name, at, action="undo", round=last)
        _cut(talk, last)

    @rule(target=names, name=names, at=st.integers(0, 1), data=st.data())
    def branch(self, name, at, data):
        talk = self.talks[name]
        last = data.draw(st.integers(0, len(talk.asked)))
        self.count += 1
        new = f"c{self.count}"
        send(self.servers[at], new, start=True, action="branch", source=name, round=last)
        self.talks[new] = Talk(
            talk.image, at, list(talk.asked), list(talk.firsts), dict(talk.turns)
        )
        _cut(self.talks[new], last)
        return new

    @rule(name=names, at=st.integers(0, 1))
    def fail_in_the_middle(self, name, at):
        small = self.servers[at].small
        small.fail["mediround_mask_decoder"] = Unavailable("full")
        try:
            self.send(name, at, prompt=TEXTS[0])
        except Unavailable:
            # The start was taken all the same; the next request need not start again.
            self.talks[name].seen_by = at
        else:
            raise AssertionError("the round was answered without a decoder")
        finally:
            small.fail.clear()

    @precondition(lambda self: hasattr(self, "talks"))
    @invariant()
    def every_conversation_is_what_was_asked(self):
        for name, talk in self.talks.items():
            now = self.send(name, talk.seen_by, action="recall")
            stored = json.loads(now["rounds"])["rounds"]
            assert [tuple(each["texts"]) for each in stored] == [one.texts for one in talk.asked]
            assert [[i for _, i in each["references"]] for each in stored] == [
                one.references for one in talk.asked
            ]
            assert now["instances"].tolist() == list(range(1, talk.instances + 1))

    def teardown(self):
        for name, talk in getattr(self, "talks", {}).items():
            now = self.send(name, 0, action="recall")
            _, standing = released_loop(talk.image, talk.asked)
            for mask, expected in zip(masks_of(now, talk.image), standing.values(), strict=True):
                np.testing.assert_array_equal(mask, expected)
        for pipeline in getattr(self, "servers", ()):
            pipeline._components.close()


def _texts(text):
    return [(TEXTS[0],), ("outline the spleen", "outline the stomach"), (TEXTS[2],)][text]


def _cut(talk, last):
    del talk.asked[last:], talk.firsts[last:]
    talk.turns = {key: turn for key, turn in talk.turns.items() if turn[0] <= last}


Conversations.TestCase.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None, derandomize=True
)
TestConversations = Conversations.TestCase
