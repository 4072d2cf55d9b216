"""Executes the conformance scenario with grpcio and prints its transcript: run.py TARGET. See README.md."""

import json
import re
import sys
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import grpc
from google.protobuf import json_format

from support.api import Client, admin_v1, dev, error_details, v1

PATIENCE = 30  # seconds; only a failing run waits as long
FOR_PEOPLE = {"summary", "explanation", "problem", "toml"}  # may be reworded


class Names:
    """What ids and refs are called in the transcript, where they must not stand themselves."""

    def __init__(self) -> None:
        self.by_value: dict[str, str] = {}

    def learn_page(self, token: str) -> None:
        """A page token is told as `<token:page>`, and meant by `$page.token`."""
        self.by_value = {value: shown for value, shown in self.by_value.items() if shown != "<token:page>"}
        self.by_value[token] = "<token:page>"

    def learn(self, alias: str, created: v1.CreateResponse | v1.RotateResponse) -> None:
        self.by_value.setdefault(created.session_id, f"<id:{alias}>")
        self.by_value.setdefault(created.session.status.session_ref, f"<ref:{alias}>")

    def value(self, name: str) -> str:
        """The id of `$alias`, the ref of `$alias.ref`."""
        alias, _, kind = name[1:].partition(".")
        wanted = f"<{kind or 'id'}:{alias}>"
        return next(value for value, shown in self.by_value.items() if shown == wanted)

    def shown(self, key: str, value: str) -> str:
        if key == "session_ref" and value:
            # Of a session that nobody created: numbered.
            self.by_value.setdefault(
                value, f"<ref:unknown-{sum('unknown' in shown for shown in self.by_value.values()) + 1}>"
            )
        return self.by_value.get(value, value)


def duration(seconds: float) -> str:
    """In steps of ten seconds, from 6.5 s below to 3.5 s above: real time passes between two steps too, and most times get less by it."""
    near = int((seconds + 6.5) // 10) * 10
    rest = abs(near)
    parts = [
        f"{rest // size % base}{unit}"
        for size, base, unit in ((3600, 10**6, "h"), (60, 60, "m"), (1, 60, "s"))
        if rest // size % base
    ]
    return ("-" if near < 0 else "") + ("".join(parts) or "0s")


def seconds(message: object) -> float:
    """Of a Duration or Timestamp."""
    return message.seconds + message.nanos / 1e9


def find_now(message: object) -> float | None:
    """The sidecar's clock when it made this message: the first that is told in it."""
    for field, value in message.ListFields():
        if field.name in ("server_time", "emit_time"):
            return seconds(value)
        if field.message_type and not field.message_type.GetOptions().map_entry:
            for item in value if field.is_repeated else [value]:
                if (now := find_now(item)) is not None:
                    return now
    return None


def flatten(names: Names, message: object, prefix: str = "", now: float | None = None) -> list[str]:
    """One line for each field that is set. Times are told relative to the message's own."""
    now = now if now is not None else find_now(message)
    lines = []
    for field, value in message.ListFields():
        kind = field.message_type and field.message_type.full_name
        if field.name in ("server_time", "emit_time", "resume_token") or (
            prefix.endswith("error.") and field.name == "message"
        ):
            continue
        items = [(f"{prefix}{field.name}", value)]
        if kind and field.message_type.GetOptions().map_entry:
            items = [(f"{prefix}{field.name}.{key}", item) for key, item in value.items()]
            kind = None
        elif field.is_repeated:
            items = [(f"{prefix}{field.name}[{place}]", item) for place, item in enumerate(value)]
        for path, item in items:
            if kind == "google.protobuf.Timestamp":
                lines.append(f"{path} = now {duration(seconds(item) - now)}")
            elif kind == "google.protobuf.Duration":
                lines.append(f"{path} = {duration(seconds(item))}")
            elif kind:
                lines += flatten(names, item, f"{path}.", find_now(item) or now) or [f"{path} = {{}}"]
            elif field.enum_type:
                lines.append(f"{path} = {field.enum_type.values_by_number[item].name}")
            elif field.name == "watcher_count":
                # A watch that its client has just left may still be there.
                lines.append(f"{path} = <watchers>")
            elif field.name in FOR_PEOPLE:
                lines.append(f"{path} = <text>")
            elif isinstance(item, str):
                lines.append(f"{path} = {names.shown(field.name, item)}")
            else:
                lines.append(f"{path} = {str(item).lower()}")
    return sorted(lines)


def failed(names: Names, error: grpc.RpcError) -> list[str]:
    """An error: its code and typed details. Messages are for people, and may be reworded."""
    lines = []
    for detail in error_details(error):
        name = detail.DESCRIPTOR.name
        if name == "ErrorInfo":
            lines += [f"{name}.domain = {detail.domain}", f"{name}.reason = {detail.reason}"]
            for key, value in detail.metadata.items():
                if key.endswith("_time"):
                    datetime.fromisoformat(value)
                    value = "<time>"
                lines.append(f"{name}.metadata.{key} = {names.shown(key, value)}")
        elif name == "BadRequest":
            lines += [f"{name}.field = {violation.field}" for violation in detail.field_violations]
    return [error.code().name, *(f"  {line}" for line in sorted(lines))]


class Watcher:
    """One watch, on a connection of its own, and the last token that came."""

    def __init__(self, target: str, request: v1.WatchExpiryRequest) -> None:
        self.target, self.request = target, request
        self.open()

    def open(self) -> None:
        self.client = Client(self.target)
        self.stream = self.client.sessions.WatchExpiry(self.request, timeout=2 * PATIENCE)

    def cut(self) -> None:
        self.stream.cancel()
        self.client.channel.close()

    def resume(self) -> None:
        # A resumed watch does not begin with the state again.
        self.request.include_initial_state = False
        self.request.resume_token = self.token
        self.open()

    def read(self, names: Names) -> list[str]:
        """The next message, or how the stream ended."""
        try:
            message = next(self.stream, None)
        except grpc.RpcError as error:
            return failed(names, error)
        if message is None:
            return ["OK"]
        assert message.resume_token, "a message without a resume token"
        self.token = message.resume_token
        return flatten(names, message)


class Runner:
    """Executes steps; each returns the lines of its transcript."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.client = Client(target)
        self.names = Names()
        self.watchers: dict[str, Watcher] = {}

    def request(self, kind: type, content: object) -> object:
        text = re.sub(r'"(\$[^"]+)"', lambda name: json.dumps(self.names.value(name[1])), json.dumps(content))
        return json_format.Parse(text, kind())

    def call(self, step: dict) -> list[str]:
        return self.ask(step, step["call"], v1, self.client.sessions)

    def admin(self, step: dict) -> list[str]:
        return self.ask(step, step["admin"], admin_v1, self.client.admin)

    def ask(self, step: dict, verb: str, messages: object, service: object) -> list[str]:
        request = self.request(getattr(messages, f"{verb}Request"), step["request"])
        try:
            answer = getattr(service, verb)(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            outcome = failed(self.names, error)
        else:
            if "as" in step:
                self.names.learn(step["as"], answer)
            if token := getattr(answer, "next_page_token", ""):
                self.names.learn_page(token)
            outcome = ["OK", *(f"  {line}" for line in flatten(self.names, answer))]
        return [f"{verb} {json.dumps(step['request'])}", *(f"  {line}" for line in outcome)]

    def advance(self, step: dict) -> list[str]:
        self.client.clock.Advance(self.request(dev.AdvanceRequest, {"duration": step["advance"]}), timeout=PATIENCE)
        return [f"Advance {step['advance']}"]

    def watch(self, step: dict) -> list[str]:
        name = step["watch"]
        self.watchers[name] = Watcher(self.target, self.request(v1.WatchExpiryRequest, step["request"]))
        return [f"Watch ({name}) {json.dumps(step['request'])}"]

    def read(self, step: dict) -> list[str]:
        name = step["read"]
        messages = [self.watchers[name].read(self.names) for _ in range(step["count"])]
        unordered = step.get("any_order", 0)
        messages[:unordered] = sorted(messages[:unordered])
        return [line for message in messages for line in (f"Read ({name})", *(f"  {line}" for line in message))]

    def cut(self, step: dict) -> list[str]:
        self.watchers[step["cut"]].cut()
        return [f"Cut ({step['cut']})"]

    def resume(self, step: dict) -> list[str]:
        self.watchers[step["resume"]].resume()
        return [f"Resume ({step['resume']})"]

    def note(self, step: dict) -> list[str]:
        return ["", f"# {step['note']}"]

    def stop(self, step: dict) -> list[str]:
        # The driver waits for this line, and stops the sidecar.
        print("Stop", flush=True)
        return [line for name in step["stop"] for line in self.read({"read": name, "count": 2})]


def main(kind: type[Runner] = Runner) -> None:
    runner = kind(sys.argv[1])
    for step in json.loads(Path(__file__).with_name("scenario.json").read_text()):
        for line in getattr(runner, next(iter(step)))(step):
            print(line, flush=True)


if __name__ == "__main__":
    main()
