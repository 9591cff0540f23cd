// The figures and plots at the top, and how long the connection has been as it is. Drawn once a second.

import { byId, write } from "./element.mjs";
import { count, decimal, duration, rate } from "./format.mjs";
import { drawLatency, drawThroughput } from "./plot.mjs";

export function drawFigures(series, nowMs) {
  const points = series.points(nowMs);
  const latency = series.latency(nowMs);
  const total = series.results + series.failures;
  write(byId("rate"), rate(series.rate(nowMs)));
  write(byId("success"), total ? `${decimal((100 * series.results) / total, 1)} %` : "–");
  write(byId("p50"), latency ? milliseconds(latency.p50) : "–");
  write(byId("p99"), latency ? milliseconds(latency.p99) : "–");
  write(byId("throughput-top"), `${count(drawThroughput(byId("throughput"), points))}/s`);
  write(byId("latency-top"), `${milliseconds(drawLatency(byId("latency"), points))} ms`);
}

export function drawSince({ sinceMs }) {
  write(byId("since"), duration(Date.now() - sinceMs));
}

function milliseconds(ms) {
  return ms < 10 ? decimal(ms, 1) : count(Math.round(ms));
}
