"""Converses by rule, so that a test knows the answer.

The last word of each part between "and" is one object: `bright` the pixels above 127, `all` every
pixel, `nothing` none, `left` the left half of the reference, `noise` random pixels. Words before:
`its` and `instance N` refer, `sleep S` waits, `fail CODE` fails, `busy K` refuses K times, `late S`
stores its round and answers S seconds later. A prompt with `why` is answered in words.

Conversations are stored in the folder `store` beside the repository, which several servers may
share; `log` there has a line for each request that came and for each round that was applied.
"""

import collections
import hashlib
import json
import pickle
import re
import threading
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
START = pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START
END = pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END


class AskedForError(Exception):
    pass


class TritonPythonModel:
    def initialize(self, args):
        self.store = Path(args["model_repository"]).parent.with_name("store")
        self.store.mkdir(exist_ok=True)
        self.lock = threading.RLock()
        self.refused = collections.Counter()
        self.turns = collections.defaultdict(threading.Lock)

    def execute(self, requests):
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy().copy() for tensor in request.inputs()}
            given = {
                name: array[0].decode() if array.dtype == object else array
                for name, array in inputs.items()
            }
            sequence = (request.correlation_id(), request.flags())
            sender = request.get_response_sender()
            threading.Thread(target=self.answer, args=(sender, sequence, given)).start()

    def answer(self, sender, sequence, given):
        with self.lock:
            turn = self.turns[sequence[0]]
        try:
            with turn:  # one request of a conversation after the other, as the real pipeline does
                values = self.converse(*sequence, **given)
            response = pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, value) for name, value in values.items()]
            )
        except AskedForError as failure:
            text, code = failure.args
            error = pb_utils.TritonError(text, getattr(pb_utils.TritonError, code))
            response = pb_utils.InferenceResponse(error=error)
        sender.send(response, flags=FINAL)

    def log(self, **what):
        with self.lock, (self.store / "log").open("a") as log:
            log.write(json.dumps(what) + "\n")

    def path(self, name):
        return self.store / f"{name}.pickle"

    def load(self, name):
        if not self.path(name).exists():
            raise AskedForError(f"conversation {name} is not stored", "NOT_FOUND")
        return pickle.loads(self.path(name).read_bytes())

    def save(self, name, conversation):
        beside = self.path(name).with_suffix(f".{threading.get_ident()}")
        beside.write_bytes(pickle.dumps(conversation))
        beside.replace(self.path(name))

    def converse(self, name, flags, action="ask", image=None, resume=None, **given):
        start, resume = bool(flags & START), resume is not None and bool(resume[0])
        prompt, turn_id = given.get("prompt", ""), given.get("turn_id")
        self.log(came=name, action=action, start=start, resume=resume, end=bool(flags & END),
                 image=image is not None, turn_id=turn_id, prompt=prompt)  # fmt: skip
        if busy := re.search(r"busy (\d+)", prompt):
            self.refused[name, prompt] += 1
            if self.refused[name, prompt] <= int(busy[1]):
                raise AskedForError("busy", "UNAVAILABLE")
        if failing := re.search(r"fail (\w+)", prompt):
            raise AskedForError(f"asked for {failing[1]}", failing[1])
        if action == "branch":
            kept = self.load(given["source"])
            kept["rounds"] = kept["rounds"][: int(given["round"][0])]
            self.save(name, kept)
            return {"round": np.array([len(kept["rounds"])], np.int32)}
        if start and not resume:
            if self.path(name).exists():
                raise AskedForError(f"conversation {name} is stored already", "INVALID_ARG")
            conversation = {"image": image, "rounds": []}
        else:
            conversation = self.load(name)
        rounds = conversation["rounds"]
        if action == "ask":
            done = next((one for one in rounds if one["turn_id"] == turn_id), None)
            if done is None:
                done = self.round(conversation, prompt, turn_id, given)
                rounds.append(done)
                self.save(name, conversation)
                self.log(applied=name, turn_id=turn_id, prompt=prompt)
                if late := re.search(r"late ([\d.]+)", prompt):
                    time.sleep(float(late[1]))
            return self.outputs(done, conversation["image"].shape[:2])
        if action == "undo":
            del rounds[int(given["round"][0]) :]
            self.save(name, conversation)
        if action == "erase":
            self.path(name).unlink()
        everything = [instance for one in rounds for instance in one["instances"]]
        number = np.array([len(rounds)], np.int32)
        height, width = conversation["image"].shape[:2]
        described = [one | {"instances": [i["number"] for i in one["instances"]]} for one in rounds]
        image = conversation["image"]
        digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
        about = {"size_hw": [height, width], "pixels_sha256": digest}
        text = json.dumps(about | {"rounds": described})
        return self.instances(everything, (height, width)) | {
            "round": number,
            "rounds": np.array([text.encode()], np.object_),
        }

    def round(self, conversation, prompt, turn_id, given):
        rounds = conversation["rounds"]
        known = {i["number"]: (one["round"], i) for one in rounds for i in one["instances"]}
        if sleeping := re.search(r"sleep ([\d.]+)", prompt):
            time.sleep(float(sleeping[1]))
        picture = conversation["image"].mean(axis=2)
        numbers = [int(n) for n in given.get("reference_instances", [])]
        for index in given.get("reference_rounds", []):
            numbers += [i["number"] for one in rounds for i in one["instances"]
                        if one["round"] == index]  # fmt: skip
        resolution = ""
        words = re.search(r"\bits\b|instance (\d+)", prompt)
        if words and not numbers and "mask" not in given:
            numbers = [int(words[1]) if words[1] else max(known, default=1)]
            resolution = f'"{words[0]}" -> instance {numbers[0]}'
        if any(number not in known for number in numbers):
            raise AskedForError(f"{numbers}: there are {len(rounds)} rounds", "INVALID_ARG")
        references = [[known[number][0], number] for number in numbers]
        reference = known[numbers[0]][1]["mask"] if numbers else np.ones(picture.shape, bool)
        if "mask" in given:
            width = picture.shape[1]
            reference = np.unpackbits(given["mask"], axis=-1, count=width)[0].astype(bool)
            references.append([0, 0])
        beta, instances = float(given["beta"][0]), []
        in_words = "why" in prompt or given["kind"] == "text"
        for part in [] if in_words else prompt.split(" and "):
            columns = np.flatnonzero(reference.any(axis=0))
            middle = columns[: len(columns) // 2]
            mask = {
                "bright": picture > 127,
                "nothing": np.zeros(picture.shape, bool),
                "left": reference & np.isin(np.arange(picture.shape[1]), middle),
                "noise": np.random.default_rng().random(picture.shape) > 0.5,
            }.get(part.split()[-1], np.ones(picture.shape, bool))
            number = max(known, default=0) + len(instances) + 1
            quality = 0.5 if number % 2 else 0.75
            instances.append({"number": number, "mask": mask, "score": 0.75 * mask.any(),
                              "quality": quality, "corrected": quality <= beta})  # fmt: skip
        return {
            "round": len(rounds) + 1,
            "turn_id": turn_id,
            "prompt": prompt,
            "kind": given["kind"],
            "beta": beta,
            "judge": given["judge"],
            "instances": instances,
            "references": references,
            "revised": [],
            "resolution": resolution,
            "answer": "Because." if in_words else f"{len(instances)} outlined.",
        }

    def outputs(self, done, size):
        texts = {name: np.array([done[name].encode()], np.object_)
                 for name in ("answer", "resolution")}  # fmt: skip
        numbers = {"round": done["round"], "cached_tokens": 100 * (done["round"] - 1),
                   "computed_tokens": 30}  # fmt: skip
        return (
            self.instances(done["instances"], size)
            | texts
            | {name: np.array([number], np.int32) for name, number in numbers.items()}
            | {"references": np.array(done["references"], np.int32).reshape(-1, 2)}
            | {"revised": np.array(done["revised"], np.int32)}
        )

    def instances(self, instances, size):
        masks = np.array([i["mask"] for i in instances], bool).reshape(len(instances), *size)
        return {
            "masks": np.packbits(masks, axis=-1),
            "scores": np.array([i["score"] for i in instances], np.float32),
            "qualities": np.array([i["quality"] for i in instances], np.float32),
            "corrected": np.array([i["corrected"] for i in instances], bool),
            "instances": np.array([i["number"] for i in instances], np.int32),
        }
