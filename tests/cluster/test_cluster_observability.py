"""deploy/observability against the metrics that there are, and the runbook in docs/OPERATIONS.md against both."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.cluster.metrics_document import EVERY, PATH, between, render

FOLDER = PATH.parents[1] / "deploy" / "observability"
# What Prometheus and the client library add of themselves.
GIVEN = {"up": {"job", "instance"}, "process_cpu_seconds_total": set(), "process_resident_memory_bytes": set()}
TARGET_LABELS = {"job", "instance", "le"}
WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset"}
TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<duration>\d+(?:ms|[smhdwy]))
    |(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    |(?P<symbol>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){}\[\],])""",
    re.VERBOSE,
)


def tokens(expression: str) -> list[tuple[str, str]]:
    """The kind and text of each token of PromQL; fails at what is none."""
    found, at = [], 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        assert match is not None, f"no PromQL at {expression[at:]!r}"
        at = match.end()
        if match.lastgroup != "space":
            found.append((str(match.lastgroup), match[0]))
    return found


def names_in(expression: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels that PromQL names. Functions stand before `(`, labels in braces or behind `by`."""
    metrics: set[str] = set()
    labels: set[str] = set()
    found = tokens(expression)
    depth, listing = 0, False
    for position, (kind, text) in enumerate(found):
        following = found[position + 1][1] if position + 1 < len(found) else ""
        if text in "{}" and kind == "symbol":
            depth += 1 if text == "{" else -1
        elif kind == "symbol" and text == ")":
            listing = False
        elif kind == "name" and text in ("by", "without", "on", "ignoring"):
            listing = True
        elif kind == "name" and (depth or listing):
            labels.add(text)
        elif kind == "name" and text not in WORDS and following not in ("(", "by", "without"):
            metrics.add(text)
    assert depth == 0, f"braces do not match in {expression!r}"
    opened = sum(text == "(" for _, text in found)
    assert opened == sum(text == ")" for _, text in found), f"parentheses do not match in {expression!r}"
    return metrics, labels


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    document: dict[str, Any] = json.loads((FOLDER / "grafana" / "dashboards" / "psephos.json").read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Where an expression stands, and the expression."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def base_of(name: str) -> str:
    """The metric that a series belongs to: histograms have three."""
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and base in EVERY and EVERY[base].kind == "histogram":
            return base
    return name


def metrics_in_use() -> set[str]:
    """Every metric that alerts and dashboard name, without what Prometheus adds of itself."""
    return {base_of(name) for _, expression in expressions() for name in names_in(expression)[0]} - set(GIVEN)


@pytest.mark.parametrize(
    ("expression", "metrics", "labels"),
    [
        ("up == 0", {"up"}, set()),
        ('sum by (a, b) (rate(x_total{c=~"y|z", d!="by"}[5m])) > 1e3', {"x_total"}, {"a", "b", "c", "d"}),
        ("time() - max(x) > 30 and on (i) group_left (j) y unless z", {"x", "y", "z"}, {"i"}),
        ("histogram_quantile(0.9, sum by (le) (rate(x_bucket[1m] offset 5m)))", {"x_bucket"}, {"le"}),
    ],
)
def test_the_tokenizer_tells_metrics_from_functions_and_labels(
    expression: str, metrics: set[str], labels: set[str]
) -> None:
    found_metrics, found_labels = names_in(expression)
    assert found_metrics - {"j"} == metrics
    assert found_labels == labels


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_in_use_exists(where: str, expression: str) -> None:
    metrics, labels = names_in(expression)
    assert metrics, f"{where}: no metric in {expression!r}"
    known = set(TARGET_LABELS)
    for name in metrics:
        base = base_of(name)
        assert base in EVERY or base in GIVEN, f"{where}: there is no metric {name}"
        if base in EVERY:
            metric = EVERY[base]
            assert (metric.kind == "histogram") == (base != name), f"{where}: {name} of a {metric.kind}"
            known |= set(metric.labels)
        else:
            known |= GIVEN[base]
    assert labels <= known, f"{where}: {labels - known} are labels of none of {metrics}"


def test_counters_are_looked_at_as_rates() -> None:
    """A counter's value says when a process started; only what must never happen at all is compared as it is."""
    for where, expression in expressions():
        for name in names_in(expression)[0]:
            if name.endswith("_total") and name != "psephos_equivocations_total":
                assert re.search(rf"(rate|increase)\({name}\b", expression), f"{where}: {expression}"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_each_alert_is_well_formed_and_has_a_line_in_the_runbook(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    lines = [line for line in PATH.read_text().splitlines() if line.startswith(f"| `{rule['alert']}` |")]
    assert len(lines) == 1, f"docs/OPERATIONS.md says nothing of {rule['alert']}, or says it twice"
    assert all(len(cell.strip()) > 10 for cell in lines[0].strip("|").split("|")[1:])


def test_the_runbook_speaks_of_no_alert_that_there_is_not() -> None:
    told = set(re.findall(r"^\| `(Psephos\w+)` \|", PATH.read_text(), re.MULTILINE))
    assert told == {rule["alert"] for rule in alerts()}


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    assert between(PATH.read_text()) == render(), "run python -m tests.cluster.metrics_document"


@pytest.mark.parametrize("metric", EVERY.values(), ids=lambda metric: metric.name)
def test_metrics_are_named_as_prometheus_asks(metric: Any) -> None:
    assert re.fullmatch(r"psephos_[a-z_]+", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    if metric.kind == "histogram":
        assert metric.name.endswith(("_seconds", "_rounds"))
    assert not {"voter", "nullifier", "record", "election"} & set(metric.labels)
    assert metric.name.removesuffix("_total") not in set(EVERY) - {metric.name}  # OpenMetrics would take them for one
    assert metric.help.endswith(".")


def test_prometheus_and_grafana_find_what_they_need() -> None:
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert prometheus["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    assert set(jobs) == {"psephos-node", "psephos-gateway", "psephos-bootnode"}
    targets = [target for job in jobs.values() for group in job["static_configs"] for target in group["targets"]]
    assert all(target.endswith(":9700") for target in targets)
    provisioning = FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
    assert yaml.safe_load((provisioning / "dashboards" / "psephos.yml").read_text())["providers"]
    identities = [panel["id"] for panel in panels()]
    assert len(set(identities)) == len(identities)
