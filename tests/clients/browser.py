"""A browser as far as these tests need one: it keeps cookies, and sends the headers that tell a click from a script."""

import http.client
import json
from dataclasses import dataclass
from http.cookies import SimpleCookie
from urllib.parse import urlencode

CLICK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1", "Sec-Fetch-Dest": "document", "Accept": "text/html"}
SCRIPT = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "application/json"}


@dataclass
class Answer:
    """What came."""

    status: int
    headers: dict[str, str]
    text: str
    taken_back: bool
    """Whether the session's cookie was deleted."""

    def json(self) -> dict:
        """The body, of JSON."""
        assert self.headers["content-type"].startswith("application/json"), self.headers
        return json.loads(self.text)


class Browser:
    """One person's browser."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}
        self.secrets: set[str] = set()

    def click(self, path: str, **headers: str) -> Answer:
        """A person asks for a page."""
        return self._ask("GET", path, CLICK | headers)

    def script(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """A page asks by itself."""
        return self._ask(method, path, SCRIPT | headers)

    def post(self, path: str, **form: str) -> Answer:
        """A person sends a form."""
        return self._ask("POST", path, CLICK | {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form))

    def _ask(self, method: str, path: str, headers: dict[str, str], body: str | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection.request(method, path, body, headers | ({"Cookie": cookie} if cookie else {}))
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        taken_back = self._keep(response.headers.get_all("Set-Cookie") or [])
        told = {key.lower(): value for key, value in response.headers.items()}
        if "location" in told:  # Some servers make it absolute.
            told["location"] = told["location"].removeprefix(f"http://127.0.0.1:{self.port}")
        return Answer(response.status, told, text, taken_back)

    def _keep(self, cookies: list[str]) -> bool:
        taken_back = False
        for line in cookies:
            for name, morsel in SimpleCookie(line).items():
                taken_back = morsel["max-age"] == "0" or "1970" in morsel["expires"]
                if taken_back:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
                    self.secrets.add(morsel.value)
        return taken_back
