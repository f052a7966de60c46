"""Rules, dashboard and autoscaler against a live Prometheus that scrapes a live Triton."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
import yaml

from client.matte import Matte
from server.launcher import Server

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = DEPLOY / "grafana/dashboards/dim.json"
ADAPTER = DEPLOY / "kubernetes/prometheus-adapter.yaml"
REQUESTS = 5

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs Prometheus: apt-get install prometheus"
)


class Prometheus:
    """A running Prometheus, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict]:
        with urlopen(f"{self.url}/api/v1/query?query={quote(expression)}") as answer:
            return json.load(answer)["data"]["result"]

    def value(self, expression: str) -> float:
        (series,) = self.query(expression)
        return float(series["value"][1])

    def rules(self) -> list[dict]:
        with urlopen(f"{self.url}/api/v1/rules") as answer:
            return json.load(answer)["data"]["groups"][0]["rules"]


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, server: Server, wait_until: Callable[..., None]
) -> Iterator[Prometheus]:
    """Prometheus with the shipped configuration, every second, on this Triton as pod dim-0."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(RULES, folder)
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [
        {"targets": [server.metrics_url], "labels": {"namespace": "matting", "pod": "dim-0"}}
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running = Prometheus(f"http://{address}")

    def has_scraped_twice() -> bool:
        try:
            return running.value("min(count_over_time(up[1m]))") >= 2
        except (OSError, ValueError):
            return False

    try:
        wait_until(has_scraped_twice, "Prometheus scrapes Triton")
        image = np.zeros((64, 64, 3), np.uint8)
        with Matte(server.grpc_url) as matte:
            for _ in range(REQUESTS):
                matte.alpha(image, np.full((64, 64), 128, np.uint8))
        answered = "sum(increase(nv_inference_request_success[5m]))"
        wait_until(lambda: running.value(answered) > 0, "the requests are counted")
        yield running
    finally:
        process.kill()
        process.wait()


def dashboard_expressions() -> dict[str, str]:
    """What the panels ask, with Grafana's variables as Grafana fills them."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "1m")
        .replace("$instance", ".*")
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
    }


def alert_expressions() -> dict[str, str]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def adapter_query() -> str:
    """What prometheus-adapter asks for the pods of a namespace."""
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    return (
        rule["metricsQuery"]
        .replace("<<.LabelMatchers>>", 'namespace="matting",pod=~"dim-0"')
        .replace("<<.GroupBy>>", "pod")
    )


def test_configuration_is_valid() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alert_expressions())} rules found" in done.stdout


def test_every_metric_is_one_that_this_server_has(server: Server) -> None:
    with urlopen(f"http://{server.metrics_url}/metrics") as answer:
        served = set(re.findall(r"^# TYPE (\S+)", answer.read().decode(), re.M))
    asked = [*dashboard_expressions().values(), *alert_expressions().values(), adapter_query()]
    named = set(re.findall(r"\bnv_\w+", " ".join(asked)))
    # NVIDIA's documentation names these; a Triton shows them where it has a GPU.
    on_gpus = {f"nv_gpu_{name}" for name in ("utilization", "power_usage")} | {
        f"nv_gpu_memory_{name}_bytes" for name in ("used", "total")
    }
    assert named - served == on_gpus - served
    assert len(named & served) >= 10


@pytest.mark.parametrize("panel", dashboard_expressions())
def test_every_panel_shows_something(prometheus: Prometheus, panel: str) -> None:
    expression = dashboard_expressions()[panel]
    values = prometheus.query(expression)  # an error of the expression is an HTTP error
    # Triton has figures of a GPU where there is one.
    is_empty = "nv_gpu" in expression and not prometheus.query("nv_gpu_utilization")
    assert bool(values) != is_empty


def test_latency_adds_up(prometheus: Prometheus) -> None:
    """The four stacked parts are what the server spends on a request."""
    shown = dashboard_expressions()
    parts = [prometheus.value(shown[f"Latency, where it goes {letter}"]) for letter in "ABCD"]
    whole = prometheus.value(
        "sum(rate(nv_inference_request_duration_us[1m]))"
        " / sum(rate(nv_inference_request_success[1m])) / 1000"
    )
    assert min(parts) > 0
    assert 0.75 * whole < sum(parts) <= 1.01 * whole


def test_rules_run_and_a_healthy_server_raises_no_alert(
    prometheus: Prometheus, wait_until: Callable[..., None]
) -> None:
    wait_until(
        lambda: all(rule["health"] == "ok" for rule in prometheus.rules()), "all rules are run"
    )
    assert {rule["name"]: rule["state"] for rule in prometheus.rules()} == dict.fromkeys(
        alert_expressions(), "inactive"
    )


LABELS = 'job="triton",instance="gpu1",model="dim"'
UP = f"up{{{LABELS}}}"
SUCCESS = f"nv_inference_request_success{{{LABELS}}}"
FAILURE = f'nv_inference_request_failure{{{LABELS},reason="BACKEND"}}'
REJECTED = f'nv_inference_request_failure{{{LABELS},reason="REJECTED"}}'
PENDING = f"nv_inference_pending_request_count{{{LABELS}}}"
# What Prometheus sees every minute of a server that works, of one that has nothing to do, and of
# trouble.
WORKING = {UP: "1x100", SUCCESS: "0+60x100", FAILURE: "0x100", REJECTED: "0x100", PENDING: "8x100"}
IDLE = WORKING | {SUCCESS: "9x100", PENDING: "0x100"}
TROUBLE = [
    (None, WORKING),
    (None, IDLE),
    (None, IDLE | {FAILURE: "0x30 1x70"}),
    (None, WORKING | {FAILURE: "0+3x100"}),
    ("TritonDown", WORKING | {UP: "0x100"}),
    ("TritonDown", WORKING | {UP: "1x20 stale"}),
    ("TritonFails", WORKING | {FAILURE: "0+4x100"}),
    ("TritonFails", IDLE | {FAILURE: "0+1x100"}),
    ("TritonRejects", WORKING | {REJECTED: "0+1x100"}),
    ("TritonQueueGrows", IDLE | {PENDING: "20x100"}),
]


def test_every_alert_is_raised_by_its_trouble_and_by_no_other(tmp_path: Path) -> None:
    assert {alert for alert, _ in TROUBLE if alert} == alert_expressions().keys()
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in seen.items()],
            "promql_expr_test": [
                {
                    "expr": firing,
                    "eval_time": "34m",
                    "exp_samples": [{"value": 1, "labels": f'{{alertname="{alert}"}}'}]
                    if alert
                    else [],
                }
            ],
        }
        for alert, seen in TROUBLE
    ]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_autoscaler_gets_a_value_for_each_pod(
    prometheus: Prometheus, server: Server, wait_until: Callable[..., None]
) -> None:
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    assert len(prometheus.query(rule["seriesQuery"])) == 1
    (series,) = prometheus.query(adapter_query())
    assert series["metric"] == {"pod": "dim-0"}
    at_rest = float(series["value"][1])
    assert 0 <= at_rest < REQUESTS
    crowd = 16
    image, trimap = np.zeros((1024, 1024, 3), np.uint8), np.full((1024, 1024), 128, np.uint8)
    with Matte(server.grpc_url) as matte, ThreadPoolExecutor(1 + crowd) as pool:
        slow = pool.submit(matte.alpha, image, trimap, "off")
        time.sleep(0.2)
        for _ in range(crowd):
            pool.submit(matte.alpha, image[:64, :64], trimap[:64, :64])
        wait_until(lambda: prometheus.value(adapter_query()) > at_rest + 0.1, "the metric rises")
        assert not slow.done(), "it rises too late: by what has been answered"


def test_prometheus_health_check(prometheus: Prometheus) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    *_, url = compose["services"]["prometheus"]["healthcheck"]["test"]
    with urlopen(prometheus.url + urlsplit(url).path) as answer:
        assert answer.status == 200


def test_dashboard_has_no_field_that_grafana_does_not_know() -> None:
    """Grafana's own classes, made from its schemas, drop what they do not know."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    plugins.register_default_plugins()
    written = json.loads(DASHBOARD.read_text())
    encoder = JSONEncoder(sort_keys=True)
    kept = json.loads(encoder.encode(models.Dashboard.from_json(json.loads(json.dumps(written)))))
    assert list(lost(written, kept)) == []


def lost(written: object, kept: object, path: str = "") -> Iterator[str]:
    """Yield the paths of what `kept` lacks or has otherwise."""
    if isinstance(written, dict):
        for name, value in written.items():
            yield from lost(value, kept.get(name), f"{path}.{name}")
    elif isinstance(written, list):
        for position, value in enumerate(written):
            yield from lost(value, kept[position], f"{path}[{position}]")
    elif written != kept:
        yield path
