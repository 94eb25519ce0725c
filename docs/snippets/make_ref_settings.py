"""Print docs/ref-settings.md from the models that read the files.

python docs/snippets/make_ref_settings.py > docs/ref-settings.md
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from fedcondense.config import methods, scenario, site, study
from fedcondense.config.loading import Settings

HEAD = """\
# Settings

Every key of every TOML file: type, range, default and meaning.

This page is generated from the models that read the files, by
`python docs/snippets/make_ref_settings.py`. A test holds it to them.

- A key that is not listed is an error, and so is a value of another type. One line names all wrong
  keys of a file.
- A whole number serves where a number is asked; nothing else is converted.
- **needed** means that there is no default. `none` is not written in a file: leave the key out.
- A *list of* something is a TOML array; the range is that of each entry. A *table* has its own
  section.

| File | Who writes it | Holds |
|---|---|---|
| [`scenario.toml`](#scenariotoml) | you | one experiment on one machine |
| [`study.toml`](#studytoml) | all sites together | what they agree on, pinned by its digest |
| [`site.toml`](#sitetoml) | one hospital | what it decides alone |

`fedcondense-simulate SCENARIO.toml` reads the first and writes the others for its simulated sites.
"""
EXAMPLE = """\
The smallest scenario, with phantoms:

```toml
name = "smallest"

[images]
kind = "phantoms"

[distill]
method = "idm"
```

Paths in a scenario are relative to its own folder. `--data PATH` replaces `[images]`: an `.npz` is
read as an archive, anything else as a folder of class folders ([ref-data.md](ref-data.md)).
"""
STUDY = """\
The SHA-256 of its canonical JSON, every default written out, is the study digest that sites pin.
Besides the ranges below:

- each class stands once;
- the last block of the network still sees 2 x 2 pixels or more (each block halves);
- `distill.partition` divides `image.size`;
- pixels and labels of the largest contribution fit into 64 MiB.

Its tables are those of a scenario.
"""
SITE = """\
Nothing in it can loosen the gate. `[images]` is that of a scenario, `[release]` has the keys of a
scenario's `[site]`.
"""
FORMS = {
    r"^[a-z0-9][a-z0-9_-]{0,39}$": "text of a-z, 0-9, - and _, at most 40 characters",
    r"^[^\x00-\x1f/\\]+$": "text without slashes and control characters",
    r"^(auto|cpu|cuda:\d+)$": '`"auto"`, `"cpu"` or `"cuda:N"`',
    r"^[0-9a-f]{64}$": "64 hex digits",
}
WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
}


def page() -> str:
    """The whole page."""
    described: set[str] = set()
    parts = [
        HEAD,
        "## scenario.toml\n\n" + EXAMPLE,
        *sections(scenario.Scenario, described),
        "## study.toml\n\n" + STUDY,
        *sections(study.Study, described),
        "## site.toml\n\n" + SITE,
        *sections(site.SiteConfig, described),
    ]
    return "\n".join(parts)


def sections(model: type[Settings], described: set[str]) -> list[str]:
    """The keys of a file, then its tables; a table that an earlier file has is not repeated."""
    schema = model.model_json_schema()
    tables = schema.pop("$defs")
    parts = [table_of(schema, tables)]
    for key, entry in schema["properties"].items():
        names = [name for name in names_in(entry) if is_table(tables[name])]
        if not names or names[0] in described:
            continue
        described.update(names)
        parts.append(f"### [{key}]\n")
        parts += distill_sections() if key == "distill" else kinds(names, tables)
    return parts


def kinds(names: list[str], tables: dict[str, Any]) -> list[str]:
    """One table, or one for each kind."""
    parts = []
    for name in names:
        text = inspect.cleandoc(tables[name].get("description", ""))
        parts.append(f"{text}\n\n{table_of(tables[name], tables)}")
    return parts


def distill_sections() -> list[str]:
    """One table for both presets of IDM: they differ in their defaults alone."""
    short, published = (m.model_json_schema() for m in (methods.Idm, methods.PublishedIdm))
    rows = ["| Key | Type and range | Default of `short` | of `published` | Meaning |"]
    rows.append("|---|---|---|---|---|")
    for key, entry in short["properties"].items():
        other = published["properties"][key]
        if key == "preset":
            entry = entry | {"const": None, "enum": ["short", "published"]}
        kind = kind_of(entry, short["$defs"])
        defaults = default_of(key, entry, short), default_of(key, other, published)
        same = "same" if defaults[0] == defaults[1] else defaults[1]
        if key == "preset":
            same = "to be written"
        rows.append(f"| `{key}` | {kind} | {defaults[0]} | {same} | {entry['description']} |")
    text = (
        "Improved distribution matching (Zhao et al., CVPR 2023). `short` is ours, chosen on "
        "radiographs\nat 32 px for one core and about a minute. `published` is the authors' "
        "command for CIFAR-10 at 10\nimages per class."
    )
    return [text + "\n", "\n".join(rows) + "\n"]


def table_of(schema: dict[str, Any], tables: dict[str, Any]) -> str:
    """The Markdown table of one model's keys."""
    rows = ["| Key | Type and range | Default | Meaning |", "|---|---|---|---|"]
    for key, entry in schema["properties"].items():
        kind, default = kind_of(entry, tables), default_of(key, entry, schema)
        rows.append(f"| `{key}` | {kind} | {default} | {entry['description']} |")
    return "\n".join(rows) + "\n"


def kind_of(entry: dict[str, Any], tables: dict[str, Any]) -> str:
    """Type and range in words."""
    if names := names_in(entry):
        target = tables[names[0]]
        return "table" if is_table(target) else choices(target["enum"])
    alternatives = [e for e in entry.get("anyOf", []) if e.get("type") != "null"]
    if alternatives:
        return kind_of(alternatives[0], tables)
    if entry.get("const") is not None:
        return choices([entry["const"]])
    if "enum" in entry:
        return choices(entry["enum"])
    if entry["type"] == "array":
        return f"list of: {kind_of(entry['items'], tables)}{length(entry)}"
    if entry.get("format") == "path":
        return "path"
    kind = FORMS[entry["pattern"]] if "pattern" in entry else WORDS[entry["type"]]
    return kind + bounds(entry)


def names_in(entry: dict[str, Any]) -> list[str]:
    """Names of the models or lists of words that a value may be of."""
    alternatives = [entry, *entry.get("anyOf", []), *entry.get("oneOf", [])]
    nested = [inner for a in alternatives[1:] for inner in a.get("oneOf", [])]
    return [e["$ref"].rpartition("/")[2] for e in [*alternatives, *nested] if "$ref" in e]


def is_table(schema: dict[str, Any]) -> bool:
    """Whether a schema is of a model, not of a list of words."""
    return schema["type"] == "object"


def choices(values: list[Any]) -> str:
    """Allowed values, as they stand in a file."""
    return " or ".join(f"`{written(value)}`" for value in values)


def bounds(entry: dict[str, Any]) -> str:
    """The range of a number, or the length of a text."""
    if "maxLength" in entry:
        return f", at most {entry['maxLength']} characters"
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    found = [f"{word} {figure(entry[key])}" for key, word in words.items() if key in entry]
    return f", {', '.join(found)}" if found else ""


def length(entry: dict[str, Any]) -> str:
    """How many entries a list may have."""
    words = {"minItems": "at least", "maxItems": "at most"}
    found = [f"{word} {entry[key]}" for key, word in words.items() if key in entry]
    return f"; {', '.join(found)} of them" if found else ""


def figure(value: float) -> str:
    """A bound as people read it."""
    return "2^63" if value == 2**63 else f"{value:,.10g}"


def default_of(key: str, entry: dict[str, Any], schema: dict[str, Any]) -> str:
    """The default, as it stands in a file."""
    if key in schema.get("required", []):
        return "**needed**"
    value = entry["default"]
    if isinstance(value, dict):
        return "its defaults"
    return "none" if value is None else f"`{written(value)}`"


def written(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(written(entry) for entry in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    sys.stdout.write(page())
