import base64
import json
import math
import zlib
from dataclasses import replace

import nibabel
import numpy as np
import PIL.Image
import pytest
import saymask
from saymask import conversation_file
from saymask.conversation_file import ConversationImage, SavedConversation
from saymask.conversation_round import ConversationRound, Instance

IMAGE = np.zeros((30, 21), np.uint8)
IMAGE[3:9, 2:8] = 200
MASKS = np.random.default_rng(0).random((3, 30, 21)) > 0.5

ROUNDS = (
    ConversationRound(
        round=1,
        prompt="die Leber ☂",
        instances=(
            Instance(1, MASKS[0], 0.75, 0.5, True),
            Instance(2, MASKS[1], 0.1 + 0.2, math.nan, False),
        ),
        answer="Both.",
        computed_tokens=30,
        beta=0.55,
        turn_id="t1",
        request_id="r1",
    ),
    ConversationRound(
        round=2,
        prompt="its left",
        references=((1, 1), (0, 0)),
        resolution='"its" -> instance 1',
        revised=(2,),
        cached_tokens=100,
        kind="mask",
        drawn_mask=MASKS[2],
        correct_instance=1,
        turn_id="t2",
    ),
)


def conversation(image=IMAGE, rounds=ROUNDS):
    return SavedConversation("abc", ConversationImage.of(image).saved, 0.6, "referenced", rounds)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "talk.json"
    conversation_file.save(path, conversation())
    return path


def plain(one):
    """A round with arrays as lists, so that two can be compared."""
    instances = [
        (i.number, i.mask.tolist(), i.score, str(i.quality), i.corrected) for i in one.instances
    ]
    drawn = None if one.drawn_mask is None else one.drawn_mask.tolist()
    return instances, drawn, vars(replace(one, instances=(), drawn_mask=None))


def test_what_is_saved_is_loaded_again_exactly(saved):
    loaded = conversation_file.load(saved)
    assert list(map(plain, loaded.rounds)) == list(map(plain, ROUNDS))
    assert replace(loaded, rounds=()) == conversation(rounds=())
    assert [path.name for path in saved.parent.iterdir()] == ["talk.json"]


def test_the_file_is_the_documented_json(saved):
    content = json.loads(saved.read_text(encoding="utf-8"))
    assert content["schema"] == "saymask.conversation/1"
    assert content["image"]["size_hw"] == [30, 21]
    first = content["rounds"][0]["instances"][0]
    packed = np.frombuffer(zlib.decompress(base64.b64decode(first["mask"])), np.uint8)
    mask = np.unpackbits(packed.reshape(30, 3), axis=-1)[:, :21]
    np.testing.assert_array_equal(mask, MASKS[0])
    assert first["area_px"] == MASKS[0].sum()
    assert content["rounds"][0]["instances"][1]["quality"] is None  # JSON has no NaN


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.update(schema="saymask.conversation/2"), "got 'saymask.conversation/2'"),
        (lambda c: c.pop("rounds"), "no 'rounds'"),
        (lambda c: c["rounds"][0].pop("beta"), "no 'beta'"),
        (lambda c: c["image"].update(size_hw=[8, 8]), "a mask is not of 8 x 8 pixels"),
        (lambda c: c["image"].update(size_hw=[30]), "not a whole conversation"),
        (lambda c: c["rounds"][0]["instances"][0].update(mask="%%"), "not a whole conversation"),
        (lambda c: c["rounds"][0]["instances"][0].update(mask="AAAA"), "not a whole conversation"),
        (lambda c: c.update(rounds=[1]), "not a whole conversation"),
        (lambda c: c.update(beta=7), "from 0 to 1"),
    ],
)
def test_a_file_that_is_no_whole_conversation_is_refused(saved, change, text):
    content = json.loads(saved.read_text(encoding="utf-8"))
    change(content)
    saved.write_text(json.dumps(content))
    with pytest.raises(saymask.InvalidArgument, match=text) as caught:
        conversation_file.load(saved)
    assert "talk.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", None])
def test_what_is_no_json_of_ours_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(saymask.InvalidArgument, match=r"a\.json"):
        conversation_file.load(tmp_path / "a.json")


def test_a_mask_that_unpacks_to_more_than_the_image_is_refused_unread(saved):
    content = json.loads(saved.read_text(encoding="utf-8"))
    bomb = base64.b64encode(zlib.compress(bytes(2**24))).decode()
    content["rounds"][0]["instances"][0]["mask"] = bomb
    saved.write_text(json.dumps(content))
    with pytest.raises(saymask.InvalidArgument, match="not of 30 x 21 pixels"):
        conversation_file.load(saved)


def test_the_image_is_read_again_from_its_file_slice_and_frame(tmp_path):
    values = np.random.default_rng(1).normal(40, 100, (9, 8, 7, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    for source in (
        saymask.read_image(
            tmp_path / "a.nii", plane="coronal", slice_index=2, frame_number=2, window=(-160, 240)
        ),
        saymask.read_image(tmp_path / "a.png"),
    ):
        again = conversation(source, rounds=()).read_image()
        np.testing.assert_array_equal(again.pixels, source.pixels)
        assert again.source.description == source.description


@pytest.mark.parametrize(("lowest", "is_ct"), [(-1024, True), (0, False)])
def test_ct_is_shown_in_the_soft_tissue_window(tmp_path, lowest, is_ct):
    values = np.random.default_rng(2).integers(lowest, 3000, (6, 5, 4)).astype(np.int16)
    values[0, 0, 0] = lowest
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    about = ConversationImage.of(tmp_path / "a.nii.gz")
    soft = saymask.read_image(tmp_path / "a.nii.gz", window=(-160, 240))
    assert np.array_equal(about.pixels, soft.pixels) == is_ct
    again = SavedConversation("abc", about.saved, 0.6, "every", ()).read_image()
    np.testing.assert_array_equal(again.pixels, about.pixels)


def test_a_file_that_cannot_be_written_is_named_as_the_user_did(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*/none") as caught:
        conversation_file.save(tmp_path / "none" / "talk.json", conversation())
    assert caught.value.filename == str(tmp_path / "none" / "talk.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        conversation_file.save(tmp_path / "folder", conversation())
    assert caught.value.filename == str(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_another_image_is_refused_and_what_it_was_about_is_said(tmp_path):
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    about = conversation(saymask.read_image(tmp_path / "a.png"), rounds=())
    assert about.checked(IMAGE).source is None  # the same pixels, from elsewhere
    PIL.Image.fromarray(255 - IMAGE).save(tmp_path / "a.png")
    with pytest.raises(saymask.InvalidArgument, match=r"it was about .*a\.png|was about .*a\.png"):
        about.read_image()
    with pytest.raises(saymask.InvalidArgument, match="an array"):
        conversation(rounds=()).checked(255 - IMAGE)
    with pytest.raises(saymask.InvalidArgument, match="names no file"):
        conversation(rounds=()).read_image()
    with pytest.raises(saymask.InvalidArgument, match="not the one"):
        conversation(np.zeros((2, 3), np.uint8)).checked(np.zeros((3, 2), np.uint8))


@pytest.mark.server
def test_a_replay_gives_identical_masks_whatever_the_conversation_went_through(talker, tmp_path):
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    drawn = np.zeros((30, 21), bool)
    drawn[20:24, 10:14] = True
    with talker.conversation(tmp_path / "a.png", beta=0.7) as chat:
        chat.ask("all and bright")
        chat.ask("nothing")
        chat.undo(1)
        chat.ask("its left")
        chat.beta = 0.2
        chat.ask("why")
        chat.ask("left", mask=drawn)
        chat.ask("left", mask=drawn, correct_instance=2)
        chat.ask("left", reference_rounds=1)
        chat.save(tmp_path / "talk.json")
    replay = talker.replay_conversation(tmp_path / "talk.json")
    with replay.conversation as again:
        assert replay.differences == ()
        assert again.id != chat.id
        assert list(map(timeless, again.rounds)) == list(map(timeless, chat.rounds))


def timeless(one):
    keep = {"turn_id": "", "request_id": "", "timings_ms": {}, "resolution": "", "kind": ""}
    return str(plain(replace(one, **keep)))


@pytest.mark.server
def test_a_replay_tells_what_differs_and_stops_where_a_mask_is_missing(talker, tmp_path):
    with talker.conversation(IMAGE) as chat:
        chat.ask("noise")
        chat.ask("all and bright")
        chat.ask("instance 3 left")
        chat.ask("why")
        chat.save(tmp_path / "talk.json")
    content = json.loads((tmp_path / "talk.json").read_text())
    content["rounds"][1]["prompt"] = "all"
    content["rounds"][3]["answer"] = "No."
    (tmp_path / "talk.json").write_text(json.dumps(content))
    replay = talker.replay_conversation(tmp_path / "talk.json", image=IMAGE)
    with replay.conversation as again:
        assert not replay.identical
        noise, count, answer, missing = replay.differences
        assert (noise.round, noise.what.split(":")[0]) == (1, "instance 1")
        assert "of 630 pixels differ" in noise.what
        assert (count.round, count.what) == (2, "1 masks, recorded 2")
        assert answer.round == 2
        assert missing.round == 3
        assert "refers to instance 3" in missing.what
        assert len(again.rounds) == 2


@pytest.mark.server
def test_a_replay_without_the_mask_that_was_drawn_is_refused_before_it_begins(
    talker, conversations, tmp_path
):
    with talker.conversation(IMAGE) as chat:
        chat.ask("left", mask=np.ones((30, 21), bool))
    with talker.resume_conversation(chat.id) as resumed:
        resumed.save(tmp_path / "talk.json")
    before = len(conversations.log())
    with pytest.raises(saymask.InvalidArgument, match="round 1 refers to a mask"):
        talker.replay_conversation(tmp_path / "talk.json", image=IMAGE)
    assert len(conversations.log()) == before
