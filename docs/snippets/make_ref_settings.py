"""Print docs/ref-settings.md from the models that read the files.

python docs/snippets/make_ref_settings.py > docs/ref-settings.md
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from pydantic import BaseModel

from fedcondense.config import experts, methods, scenario, server, site, study
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
| [`server.toml`](#servertoml) | the coordinator | where the server is, and how long a run waits |

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
read as an archive, a `.csv` as a list of image files, anything else as a folder of class folders
([ref-data.md](ref-data.md)).
"""
STUDY = """\
The SHA-256 of its canonical JSON, every default written out, is the study digest that sites pin.
Besides the ranges below:

- each class stands once;
- the last block of a `convnet` still sees 2 x 2 pixels or more (each block halves);
- `distill.partition` divides `image.size`;
- pixels and labels of the largest contribution fit into 64 MiB.

Its tables are those of a scenario.
"""
DISTILL = """\
`method` chooses what is done, `preset` the defaults of the other keys; the first preset is taken if
none is named. A preset changes defaults alone: every key may be set beside it. In the tables below,
*same* is what the first preset has.

| `method` | Presets | Images are | May be released |
|---|---|---|---|
| `random`, `herding`, `forgetting` | `standard` | real | never; `study-only` studies them |
| `dm`, `idm` | `short`, `published` | learned | yes, unless `start = "real"` |
| `mtt`, `pruned-mtt` | `short`, `published`, `cxr-112` | learned | yes, unless `start = "real"` |
"""
EXPERTS = """\
`herding` needs one only; `idm` has the defaults of `short` in both presets. For `mtt` and
`pruned-mtt`, `epochs` is at least `max_start - 1 + expert_epochs`: a match reads no further.
"""
SWEEP = """\
Each entry is an axis: a list, under the key whose place its values take. All combinations are
played, the last axis varying fastest; finished ones are not played again. A key of a table is
written in a table (`[sweep.partition]` with `alpha = [0.1, 1.0]`), and a list of tables is an axis
too: each `[[sweep.distill]]` is a whole `[distill]`. `[[sweep.together]]` holds keys of the
scenario that change together. What the scenario leaves out, and an axis names, is taken from the
axis's first value. The data and `read` cannot be varied.

```toml
[sweep]
images_per_class = [1, 5, 10]

[[sweep.distill]]
method = "idm"

[[sweep.distill]]
method = "pruned-mtt"
```
"""
SITE = """\
Nothing in it can loosen the gate. `[images]` is that of a scenario, `[release]` has the keys of a
scenario's `[site]`.
"""
SERVER = """\
Paths are relative to the folder of the file. It holds paths to keys, never a secret.
`[evaluation]` is `[images]` of a scenario; of data with a split of its own, the test images alone
are scored on. `keys`, `enrolled` and `revoked` are not inside `runs`.
"""
FREE_TABLES = {"sweep": SWEEP}  # tables whose keys are those of others
FORMS = {
    r"^[a-z0-9][a-z0-9_-]{0,39}$": "text of a-z, 0-9, - and _, at most 40 characters",
    r"^[^\x00-\x1f/\\]+$": "text without slashes and control characters",
    r"^(auto|cpu|cuda:\d+)$": '`"auto"`, `"cpu"` or `"cuda:N"`',
    r"^[0-9a-f]{64}$": "64 hex digits",
    r"^[1-9]\d{0,5} (s|min|h|d)$": "a whole number, a space, and s, min, h or d",
    r"^[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}$": "a name or an address",
    r"^([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]+\]):\d{1,5}$": "host:port",
}
ALIKE = {"pruned-mtt": "mtt"}  # only rows that the other method has not are shown
OF_EXPERTS: dict[str, type[BaseModel]] = {
    "short": experts.Experts,
    "published": experts.PublishedExperts,
    "cxr-112": experts.RadiographExperts,
    "herding": experts.OneExpert,
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
        "## server.toml\n\n" + SERVER,
        *sections(server.ServerConfig, described),
    ]
    return "\n".join(parts)


def sections(model: type[Settings], described: set[str]) -> list[str]:
    """The keys of a file, then its tables; a table that an earlier file has is not repeated."""
    schema = model.model_json_schema()
    tables = schema.pop("$defs")
    parts = [table_of(schema, tables)]
    for key, entry in schema["properties"].items():
        if key in FREE_TABLES:
            parts.append(f"### [{key}]\n\n{FREE_TABLES[key]}")
        names = [name for name in names_in(entry) if is_table(tables[name])]
        if not names or names[0] in described:
            continue
        described.update(names)
        parts.append(f"### [[{key}]]\n" if entry.get("type") == "array" else f"### [{key}]\n")
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
    """A section for each method, its presets as columns; then the experts that some share."""
    parts = [DISTILL]
    for method, presets in methods.PRESETS.items():
        models = [model for model in methods.MODELS if method_of(model) == method]
        rows = preset_rows(models, presets)
        like = ALIKE.get(method)
        if like:
            shared = preset_rows([m for m in methods.MODELS if method_of(m) == like], presets)
            rows = [row for row in rows if row not in shared]
        parts.append(f"#### {method}\n\n{about(models[:1] if like else models)}\n")
        if like:
            parts.append(f"It has the keys and presets of `{like}`, and:\n")
        parts.append(preset_table(rows, presets))
    parts += [f"#### [distill.experts]\n\n{about([experts.Experts])}\n", EXPERTS]
    parts.append(preset_table(preset_rows(list(OF_EXPERTS.values()), ()), tuple(OF_EXPERTS)))
    return parts


def method_of(model: type[BaseModel]) -> str:
    """The method whose settings a model is."""
    return str(model.model_json_schema()["properties"]["method"]["const"])


def about(models: list[type[BaseModel]]) -> str:
    """What the models say of themselves: the first one at length, each other preset in a line."""
    texts = [inspect.cleandoc(model.__doc__ or "") for model in models]
    return "\n".join([texts[0], "", *(f"- {text}" for text in texts[1:])]).rstrip()


def preset_rows(models: list[type[BaseModel]], presets: tuple[str, ...]) -> list[list[str]]:
    """Key, type and range, the default in each model, meaning; the first model describes a key."""
    schemas = [model.model_json_schema() for model in models]
    rows = []
    keys = schemas[0]["properties"]
    ahead = dict.fromkeys(key for key in ("method", "preset") if key in keys)
    for key in ahead | keys:
        entry = keys[key]
        kind = kind_of(entry, schemas[0].get("$defs", {}))
        defaults = [default_of(key, schema["properties"][key], schema) for schema in schemas]
        if key == "preset":
            kind = choices(list(presets))
            defaults = [defaults[0], *(["to be written"] * len(presets[1:]))]
        same = ["same" if default == defaults[0] else default for default in defaults[1:]]
        rows.append([f"`{key}`", kind, defaults[0], *same, entry["description"]])
    return rows


def preset_table(rows: list[list[str]], columns: tuple[str, ...]) -> str:
    """The Markdown table of rows that have a default in each column."""
    first, *others = (f"`{column}`" for column in columns)
    head = ["Key", "Type and range", f"Default of {first}" if others else "Default"]
    head += [f"of {other}" for other in others] + ["Meaning"]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- ", "|---") + "\n"


def table_of(schema: dict[str, Any], tables: dict[str, Any]) -> str:
    """The Markdown table of one model's keys."""
    rows = ["| Key | Type and range | Default | Meaning |", "|---|---|---|---|"]
    for key, entry in schema["properties"].items():
        kind, default = kind_of(entry, tables), default_of(key, entry, schema)
        rows.append(f"| `{key}` | {kind} | {default} | {entry['description']} |")
    return "\n".join(rows) + "\n"


def kind_of(entry: dict[str, Any], tables: dict[str, Any]) -> str:
    """Type and range in words."""
    if entry.get("type") == "array":
        return f"list of: {kind_of(entry['items'], tables)}{length(entry)}"
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
    if entry["type"] == "object":
        return "table"
    if entry.get("format") == "path":
        return "path"
    kind = FORMS[entry["pattern"]] if "pattern" in entry else WORDS[entry["type"]]
    return kind + bounds(entry)


def names_in(entry: dict[str, Any]) -> list[str]:
    """Names of the models or lists of words that a value may be of."""
    alternatives = [entry, *entry.get("anyOf", []), *entry.get("oneOf", [])]
    alternatives += [entry["items"]] if "items" in entry else []
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
    value = entry.get("default")  # a table without keys of its own has none
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
