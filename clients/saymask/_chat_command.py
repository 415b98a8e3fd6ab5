"""The command `saymask chat`: a conversation about one image, typed, piped or from a script.

A line is a question, or a command that begins with `/`. Every answer is printed and written as it
comes; an error of one line is printed, and the chat goes on.
"""

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from saymask import conversation_file, writers
from saymask._command import (
    DEFAULT_OUTPUT,
    EXIT_CODES,
    FAILED,
    MASK_FORMS,
    NOTHING_FOUND,
    OK,
    _told,
    add_image_options,
    add_window_option,
    client_of,
    introduction,
    read_source,
)
from saymask._conversation_protocol import JUDGES
from saymask._conversation_state import BETA, JUDGE
from saymask._inputs import check_prompts
from saymask.client import Client
from saymask.conversation import Conversation
from saymask.conversation_round import DRAWN_MASK, ConversationRound, Instance
from saymask.errors import InvalidArgument, SaymaskError
from saymask.overlay import draw_round
from saymask.results import Segmentation, box_from_mask
from saymask.source_image import SourceImage
from saymask.windowing import SOFT_TISSUE_HU

__all__ = ["add_chat"]

_COMMANDS = """/use round N [M ...]     the next question refers to the masks of these rounds
/use instance N [M ...]  the next question refers to these masks
/undo N                  forget all rounds after round N; 0 forgets all
/branch N                go on in a conversation that begins as rounds 1 to N of this one
/rounds                  list the rounds
/beta X                  correct masks whose q is at most X, from the next round on
/save FILE               write the conversation, to resume or replay it
/erase                   remove this conversation from the server, and end; files stay
/help                    print this
/quit                    end; the server keeps the conversation for a while"""

_EXAMPLES = f"""a line is a question, or one of these; # begins a comment line:
  {_COMMANDS.replace(chr(10), chr(10) + "  ")}

examples:
  saymask chat abdomen.nii.gz --slice 42 --save talk.json
  saymask chat abdomen.nii.gz "the liver" -p "the lesion in it" --slice 42 --script more.txt
  saymask chat abdomen.nii.gz --slice 42 --resume talk.json
  saymask chat abdomen.nii.gz --slice 42 --replay talk.json

{EXIT_CODES}"""


def add_chat(
    commands: Any, common: argparse.ArgumentParser, one_line: Callable[[BaseException], str]
) -> None:
    """Add the command to the parser's subcommands; `one_line` words an error for the shell."""
    chat = commands.add_parser(
        "chat",
        parents=[common],
        help="ask about one image in rounds that refer to each other",
        description=(
            "Ask about one image in rounds whose questions may refer to earlier masks, as in "
            '"the lesion in it" or "the left half of instance 2". Questions of the command line '
            "are asked first, then those of the script, or of standard input."
        ),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_image_options(chat)
    low, high = SOFT_TISSUE_HU
    add_window_option(
        chat, f"of CT: {low:g} {high:g}; else the file's own window, or nearly the whole range"
    )
    chat.add_argument("--script", type=Path, metavar="FILE", help="read the lines from this file")
    chat.add_argument(
        "--save", type=Path, metavar="FILE", help="write the conversation after every round"
    )
    begun = chat.add_mutually_exclusive_group()
    begun.add_argument(
        "--resume", metavar="FILE.json|ID", help="go on with a conversation that the server stores"
    )
    begun.add_argument(
        "--replay", type=Path, metavar="FILE", help="ask a saved conversation again and compare"
    )
    chat.add_argument(
        "--beta", type=float, metavar="X", help=f"correct masks whose q is at most X ({BETA})"
    )
    chat.add_argument(
        "--judge",
        choices=JUDGES,
        help=f"masks to judge and correct: every one, or those referred to ({JUDGE})",
    )
    chat.set_defaults(run=_chat, command="chat", one_line=one_line)


def _chat(options: argparse.Namespace) -> int:
    prompts = check_prompts(
        [*([] if options.prompt is None else [options.prompt]), *options.more_prompts]
    )
    if options.resume and options.judge:
        raise InvalidArgument("--judge: a resumed conversation keeps its own; leave it out")
    if options.replay is not None:
        _check_replay(options, prompts)
    script = None if options.script is None else _script(options.script)
    with client_of(options) as client:
        source = read_source(options, SOFT_TISSUE_HU)
        talk = _Chat(client, source, options)
        talk.say(introduction(source))
        if options.replay is not None:
            return talk.replay(options.replay)
        options.output.mkdir(parents=True, exist_ok=True)
        if options.save is not None and not options.save.parent.is_dir():
            raise InvalidArgument(
                f"--save {options.save}: there is no folder {options.save.parent}"
            )
        with talk:
            talk.begin()
            lines = _typed(talk) if script is None else script
            for line in itertools.chain(prompts, lines):
                if not talk.take(line):
                    break
            talk.tell_how_to_resume()
        if options.json:
            document = conversation_file.document(talk.conversation.saved())
            print(json.dumps(document, ensure_ascii=False, indent=1))
        return talk.exit_code()


def _check_replay(options: argparse.Namespace, prompts: list[str]) -> None:
    """Refuse what a replay would ignore: it asks what is recorded, and writes nothing."""
    given = {
        "a question": bool(prompts),
        "--script": options.script is not None,
        "--save": options.save is not None,
        "--beta": options.beta is not None,
        "--judge": options.judge is not None,
        "--output": options.output != DEFAULT_OUTPUT,
        "--mask": options.mask != MASK_FORMS[0],
    }
    ignored = ", ".join(name for name, is_given in given.items() if is_given)
    if ignored:
        raise InvalidArgument(
            "--replay asks the questions of its file as they were asked, and writes nothing; "
            f"leave out {ignored}, or go on with --resume"
        )


def _script(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--script {path}: cannot be read: {error}") from error


def _typed(talk: "_Chat") -> Iterator[str]:
    """Return the lines of standard input, with a prompt and editing where someone types them."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (importing it is what gives input() its editing)
    talk.say("Ask, or /help; /quit or Ctrl-D ends.")
    while True:
        try:
            yield input(f"[{len(talk.conversation.rounds) + 1}] ")
        except EOFError:
            return


class _Chat:
    """What one run of the command holds."""

    def __init__(self, client: Client, source: SourceImage, options: argparse.Namespace) -> None:
        self.conversation: Conversation
        self._client = client
        self._source = source
        self._options = options
        self._talks = not (options.json or options.quiet)
        self._references: dict[str, list[int]] = {}
        self._note: str | None = None  # what to know of all answers of this server, once asked
        self._asked = self._found = self._failed = self._erased = False
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "_Chat":
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    def say(self, text: str) -> None:
        if self._talks:
            print(text, flush=True)

    def begin(self) -> None:
        """Begin a conversation, or resume one."""
        options = self._options
        if options.resume:
            file = Path(options.resume)
            resumed = self._client.resume_conversation(
                file if file.is_file() else options.resume, image=self._source
            )
            self._go_on_with(resumed)
            if options.beta is not None:
                resumed.beta = options.beta
            self.say(f"resumed conversation {resumed.id}")
            self._list()
            return
        beta = BETA if options.beta is None else options.beta
        self._go_on_with(
            self._client.conversation(self._source, beta=beta, judge=options.judge or JUDGE)
        )
        self.say(f"conversation {self.conversation.id}")

    def take(self, line: str) -> bool:
        """Take one line, and return whether the chat goes on."""
        line = line.strip()
        if not line or line.startswith("#"):
            return True
        try:
            if line.startswith("/"):
                return self._command(*line[1:].split())
            self._ask(line)
        except (SaymaskError, OSError) as error:
            self._complain(self._options.one_line(error))
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            self._complain("interrupted; asking the same again fetches its answer")
        return True

    def tell_how_to_resume(self) -> None:
        """Say how to go on with the conversation, if the server has any of it."""
        if self.conversation.rounds and not self._erased:
            self.say(
                f"\nthe server keeps conversation {self.conversation.id} for a while; to go on, "
                f"give the same image and options of it, and --resume {self.conversation.id}"
            )

    def exit_code(self) -> int:
        if self._failed:
            return FAILED
        return NOTHING_FOUND if self._asked and not self._found else OK

    def replay(self, file: Path) -> int:
        """Ask a saved conversation again, say what differs, and return the exit code."""
        replay = self._client.replay_conversation(file, image=self._source)
        with replay.conversation as conversation:
            for difference in replay.differences:
                self.say(f"round {difference.round}: {difference.what}")
            if self._options.json:
                differences = [vars(difference) for difference in replay.differences]
                print(json.dumps({"identical": replay.identical, "differences": differences}))
            if replay.identical:
                self.say(f"all {len(conversation.rounds)} rounds are identical")
        return OK if replay.identical else FAILED

    def _command(self, name: str = "", *arguments: str) -> bool:
        """Run what follows a slash, and return whether the chat goes on."""
        if name == "quit":
            return False
        if name == "erase":
            if arguments:
                raise InvalidArgument(
                    f"/erase: it takes nothing and erases all, got {' '.join(arguments)}; "
                    "/undo N forgets the rounds after round N"
                )
            self.conversation.erase()
            self._erased = True
            self.say(f"erased conversation {self.conversation.id} on the server")
            return False
        if name == "help":
            self.say(_COMMANDS)
        elif name == "rounds":
            self._list()
        elif name == "use":
            self._use(*arguments)
        elif name in ("undo", "branch"):
            (number,) = _numbers(name, arguments, count=1)
            if name == "undo":
                self.conversation.undo(number)
                self.say(f"{len(self.conversation.rounds)} rounds are left")
            else:
                before = self.conversation.id
                self._go_on_with(self.conversation.branch(number))
                self.say(f"conversation {self.conversation.id}; the one before is {before}")
            self._save()
        elif name == "beta":
            self.conversation.beta = _beta(arguments)
        elif name == "save" and arguments:
            path = Path(" ".join(arguments))
            self.conversation.save(path)
            self.say(f"saved {path}")
        else:
            raise InvalidArgument(f"/{name} is no command, or lacks something; /help lists them")
        return True

    def _use(self, what: str = "", *numbers: str) -> None:
        if what not in ("round", "instance"):
            raise InvalidArgument("/use: expected '/use round 2' or '/use instance 3'")
        self._references[f"reference_{what}s"] = _numbers(f"use {what}", numbers)

    def _ask(self, prompt: str) -> None:
        self._asked = True
        answer = self.conversation.ask(
            prompt,
            reference_rounds=self._references.get("reference_rounds"),
            reference_instances=self._references.get("reference_instances"),
        )
        self._references.clear()
        self._found |= answer.found or not answer.instances  # an answer in words is one, too
        self.say(self._answer(answer, self._write(answer)))
        self._save()

    def _go_on_with(self, conversation: Conversation) -> None:
        self.conversation = self._closing.enter_context(conversation)

    def _save(self) -> None:
        if self._options.save is not None:
            self.conversation.save(self._options.save)

    def _complain(self, text: str) -> None:
        self._failed = True
        print(f"saymask: error: {text}", file=sys.stderr, flush=True)

    def _list(self) -> None:
        for one in self.conversation.rounds:
            numbers = ", ".join(str(instance.number) for instance in one.instances)
            self.say(f"round {one.round}  “{one.prompt}”  instances {numbers or 'none'}")
        if not self.conversation.rounds:
            self.say("no round yet")

    def _write(self, answer: ConversationRound) -> list[Path]:
        """Write the masks and the overlay of one round, if it has masks."""
        if not answer.instances:
            return []
        if self._note is None:
            health = _told(self._client.health)
            self._note = "" if health is None else health.note
        name = f"{self._source.case}_{self.conversation.id[:8]}_round{answer.round}"
        overlay = self._options.output / f"{name}_overlay.png"
        draw_round(self._source, answer, self._note).save(overlay, format="PNG")
        files = []
        for instance in answer.instances:
            path = self._options.output / f"{name}_instance{instance.number}"
            mask = _as_segmentation(answer, instance)
            if self._options.mask == "png":
                files.append(path.with_name(f"{path.name}_mask.png"))
                writers.write_mask_png(files[-1], mask)
            else:
                files.append(path.with_name(f"{path.name}.nii.gz"))
                writers.write_mask_nifti(files[-1], mask, self._source)
        return [*files, overlay]

    def _answer(self, answer: ConversationRound, files: list[Path]) -> str:
        lines = [f"\nround {answer.round}  “{answer.prompt}”"]
        taken = [
            "the mask that was drawn" if (of, number) == DRAWN_MASK else
            f"round {of}, instance {number}"
            for of, number in answer.references
        ]  # fmt: skip
        how = f"   ({answer.resolution})" if answer.resolution else ""
        if taken or how:
            lines.append(f"  refers   to {' and '.join(taken) or 'nothing'}{how}")
        lines.append(f"  answer   {answer.answer}")
        lines += [f"  mask     {_instance_line(instance, answer)}" for instance in answer.instances]
        if answer.revised:
            numbers = ", ".join(map(str, answer.revised))
            lines.append(f"  revised  instance {numbers}, as this round refers to it")
        total_s = answer.timings_ms["total"] / 1e3
        lines.append(
            f"  time     {total_s:.1f} s, {answer.computed_tokens} tokens computed, "
            f"{answer.cached_tokens} from earlier rounds"
        )
        lines += [f"  file     {path}" for path in files]
        return "\n".join(lines)


def _instance_line(instance: Instance, answer: ConversationRound) -> str:
    if not instance.found:
        size = "nothing found"
    else:
        size = f"{int(instance.mask.sum()):,} px ({instance.mask.mean():.1%} of the picture)"
    quality = "not judged yet" if np.isnan(instance.quality) else f"q {instance.quality:.2f}"
    corrected = f", corrected, as q is at most {answer.beta:g}" if instance.corrected else ""
    return f"instance {instance.number}: {size}, score {instance.score:.2f}, {quality}{corrected}"


def _as_segmentation(answer: ConversationRound, instance: Instance) -> Segmentation:
    box_xyxy = box_from_mask(instance.mask)
    return Segmentation(
        prompt=answer.prompt,
        mask=instance.mask,
        box_xyxy=np.zeros(4, np.float32) if box_xyxy is None else box_xyxy,
        score=instance.score,
    )


def _beta(words: tuple[str, ...]) -> float:
    try:
        (word,) = words
        return float(word)
    except ValueError:
        got = " ".join(words) or "nothing"
        raise InvalidArgument(f"/beta: expected a number from 0 to 1, got {got}") from None


def _numbers(command: str, words: tuple[str, ...], count: int | None = None) -> list[int]:
    if not words or (count is not None and len(words) != count) or not all(
        word.isascii() and word.isdigit() for word in words
    ):  # fmt: skip
        got = " ".join(words) or "nothing"
        raise InvalidArgument(f"/{command}: expected a number, as in '/{command} 2', got {got}")
    return [int(word) for word in words]
