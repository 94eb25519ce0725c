"""What lies ready for a hospital: example settings, its service unit, the page that leads it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from fedcondense.config.site import load_site
from fedcondense.exchange.keys import SigningKey
from fedcondense.flower.hops import _HOPS
from fedcondense.privacy.ledger import PrivacyLedger
from fedcondense.site.enrolment import init_site
from fedcondense.site.readiness import private_folder
from fedcondense.site.site_toml import site_toml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "sites" / "example"
UNIT = EXAMPLE / "fedcondense-site.service"
PAGE = (ROOT / "docs" / "how-to-join-a-study.md").read_text(encoding="utf-8")


def test_the_example_is_what_init_writes() -> None:
    text = (EXAMPLE / "site.toml").read_text(encoding="utf-8")

    assert text == site_toml("lakeside", seed=20261121)
    assert load_site(EXAMPLE / "site.toml").name == "lakeside"


def test_every_table_that_is_commented_out_could_be_put_in(tmp_path: Path) -> None:
    text = site_toml("lakeside", seed=1)
    commented = re.compile(r"^# (\[\w+\]|\w+ = .*)$", re.MULTILINE)

    (tmp_path / "SITE.toml").write_text(commented.sub(r"\1", text))

    site = load_site(tmp_path / "SITE.toml")
    assert len(commented.findall(text)) >= 8
    assert site.ledger is not None
    assert site.declared is not None
    assert site.release.needs_approval


def test_the_page_explains_every_hop_of_check() -> None:
    for hop in _HOPS:
        assert f"| {hop} | " in PAGE


def as_root(page: str, root: Path) -> str:
    """The page's commands that move files, with another root and nobody's permissions changed."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.partition("## 7. As a service")[2], re.S | re.M)
    [moving] = [block for block in blocks if "mv -T" in block]
    lines = [line for line in moving.splitlines() if not line.startswith("chown")]
    assert len(lines) >= 6
    text = "\n".join(lines).replace("-g fedcondense ", "")
    return re.sub(r"/(etc|var/lib)/", rf"{root}/\1/", text)


def test_the_state_moves_to_the_service_as_a_whole_word_for_word(tmp_path: Path) -> None:
    folder, root = tmp_path / "lakeside", tmp_path / "root"
    made = init_site(folder / "SITE.toml")
    for name in ("study.toml", "authority.pem"):
        (folder / name).touch()
    before = load_site(folder / "SITE.toml")
    PrivacyLedger.open(before.ledger_folder, before.population, None)
    (before.ledger_folder / "charged").touch()
    (root / "etc").mkdir(parents=True)
    (root / "var" / "lib").mkdir(parents=True)

    subprocess.run(["sh", "-eu", "-c", as_root(PAGE, root)], cwd=folder, check=True)

    site = load_site(root / "etc" / "fedcondense" / "SITE.toml")
    assert SigningKey.load(site.signing_key).fingerprint == made.signing
    assert (site.ledger_folder / "charged").exists()
    assert private_folder(site.state) == root / "var" / "lib" / "fedcondense"
    assert not before.state.exists()  # a copy would be a second ledger


def test_the_page_prepares_what_the_unit_expects() -> None:
    unit = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.M))
    program, _, settings = unit["ExecStart"].split()
    environment = program.removesuffix("/bin/fedcondense-site")

    for said in (
        f"useradd --system --home-dir /var/lib/{unit['StateDirectory']} ",
        f"nologin {unit['User']}\n",
        f"python3 -m venv {environment}\n",
        f"-g {unit['Group']} SITE.toml study.toml authority.pem {Path(settings).parent}\n",
        f"mv -T state /var/lib/{unit['StateDirectory']}\n",
        f"runuser -u {unit['User']} -- {program} check {settings}\n",
    ):
        assert said in PAGE
