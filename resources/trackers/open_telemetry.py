"""OpenTelemetry metrics, served for Prometheus while the training runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.resources.trackers.tracked_run import TrackedRun, metric_name

HOST, PORT = "localhost", 8000


class Endpoint:
    """An HTTP endpoint with the last figures."""

    def __init__(self, settings: Mapping[str, Any], run: TrackedRun) -> None:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import Resource
        from prometheus_client import start_http_server

        host, port = settings.get("otel_metrics_host") or HOST, settings.get("otel_metrics_port") or PORT
        resource = Resource.create({"service.name": "tunemill"})
        self._provider = MeterProvider(resource=resource, metric_readers=[PrometheusMetricReader()])
        self._meter = self._provider.get_meter("tunemill")
        self._gauges: dict[str, Any] = {}
        self._labels = {name: str(run.facts[name]) for name in ("pipeline", "node")}
        self._server, _ = start_http_server(port, addr=host)
        self.run_id = run.name
        self.place = f"http://{host}:{port}/metrics, while it trains"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The last figure counts."""
        for name, value in {**metrics, "step": step}.items():
            shown = metric_name(name).replace("/", "_")
            gauge = self._gauges.get(shown) or self._meter.create_gauge(shown)
            self._gauges[shown] = gauge
            gauge.set(value, self._labels)

    def finish(self, succeeded: bool, summary: Mapping[str, Any], artifact: Path | None) -> None:
        """Nothing is served any more."""
        self._provider.shutdown()
        self._server.shutdown()


def open_run(settings: Mapping[str, Any], run: TrackedRun) -> Endpoint:
    """Serve the figures. Ends with an OSError where the port is taken."""
    return Endpoint(settings, run)
