"""Certificates of an authority of the test's own, made by openssl."""

import subprocess
from pathlib import Path

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """An authority; what it signs is in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._openssl("req", "-x509", "-days", "3", "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.crt", *KEY)

    def sign(self, name: str, *, days: int = 3, names: str | None = "DNS:localhost,IP:127.0.0.1") -> tuple[Path, Path]:
        """A certificate that is good for some days from now, or ended so many days ago; and its key. Without names it has its common name only."""
        alternative = f"subjectAltName={names}\n" if names else ""
        (self.folder / f"{name}.names").write_text(f"basicConstraints=CA:FALSE\n{alternative}")
        self._openssl("req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", *KEY)
        period = ["-days", str(days)]
        self._openssl(
            *["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"],
            *[*period, "-extfile", f"{name}.names", "-out", f"{name}.crt"],
        )
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def not_after(self, certificate: Path) -> str:
        """When a certificate ends, as openssl says it."""
        return self._openssl("x509", "-in", str(certificate), "-noout", "-enddate").removeprefix("notAfter=").strip()

    def _openssl(self, *words: str) -> str:
        return subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True, text=True).stdout
