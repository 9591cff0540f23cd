// The page: what comes is kept and counted at once, and drawn a few times a second.

import { drawAlerts, onAlert, onFailure } from "./alerts.mjs";
import { announce } from "./announce.mjs";
import { connect } from "./connection.mjs";
import { byId, write } from "./element.mjs";
import { alert, failure, results, visible } from "./feed.mjs";
import { drawFigures, drawSince } from "./figures.mjs";
import { compile, FilterError } from "./filter.mjs";
import { clock, count, duration } from "./format.mjs";
import { Grid } from "./grid.mjs";
import { View } from "./kept.mjs";
import { listenForKeys } from "./keys.mjs";
import { fillFailure, fillResult, makeFailure, makeResult } from "./rows.mjs";
import { Seen } from "./seen.mjs";
import { Series } from "./series.mjs";
import { nextTheme, useStoredTheme } from "./theme.mjs";
import { dismissToasts, sweepToasts } from "./toasts.mjs";

const KEEP_RESULTS = 5000;
const KEEP_FAILURES = 1000;
// Nobody reads faster, and the time between belongs to scrolling and typing.
const MIN_DRAW_INTERVAL_MS = 100;

const series = new Series();
const views = { results: new View(KEEP_RESULTS), failures: new View(KEEP_FAILURES) };
const rows = {
  results: { rowHeight: 28, make: makeResult, fill: fillResult },
  failures: { rowHeight: 46, make: makeFailure, fill: fillFailure },
};
const grids = {
  results: new Grid(byId("results"), { view: views.results, ...rows.results, open, moved: schedule }),
  failures: new Grid(byId("failures"), { view: views.failures, ...rows.failures, open, moved: schedule }),
};
const connection = { state: "connecting", sinceMs: Date.now() };
const seen = { "public:results": new Seen(), "public:alerts": new Seen() };
let scheduled = false;
let lastDrawnMs = 0;

function schedule() {
  if (scheduled) return;
  scheduled = true;
  const waitMs = lastDrawnMs + MIN_DRAW_INTERVAL_MS - performance.now();
  if (waitMs > 0) setTimeout(requestAnimationFrame, waitMs, draw);
  else requestAnimationFrame(draw);
}

function draw() {
  scheduled = false;
  lastDrawnMs = performance.now();
  for (const grid of Object.values(grids)) grid.measure();
  for (const grid of Object.values(grids)) grid.draw();
  drawAlerts();
  write(byId("results-total"), count(series.results));
  write(byId("failures-total"), count(series.failures));
  byId("no-results").hidden = views.results.length > 0;
  byId("no-failures").hidden = views.failures.length > 0;
  byId("newest").hidden = grids.results.follows;
  drawKept();
  // By the next frame this one is on the screen. A page in the background draws nothing.
  if (!views.results.frozen) requestAnimationFrame(saySeen);
}

function saySeen() {
  for (const [topic, each] of Object.entries(seen)) say(topic, each.drawn(performance.now()));
}

function drawKept() {
  const { results, failures } = views;
  const shown = results.length + failures.length;
  const kept = results.available + failures.available;
  write(byId("kept"), shown < kept ? `${count(shown)} of ${count(kept)} match` : `${count(kept)} kept`);
  const paused = results.frozen !== null;
  write(byId("pause"), paused ? `Resume (${count(results.waiting + failures.waiting)} new)` : "Pause");
  byId("pause").dataset.paused = String(paused);
}

function tick() {
  const nowMs = performance.now();
  drawFigures(series, nowMs);
  drawSince(connection);
  sweepToasts(nowMs);
}

function open(record) {
  byId("detail-title").textContent = record.request || record.type || "Event";
  const lines = JSON.stringify(record.doc ?? null, null, 2).split("\n");
  const { traceback } = record.doc ?? {};
  if (typeof traceback === "string") lines.unshift(...traceback.split("\n"), "");
  byId("detail-text").textContent = lines.map(visible).join("\n");
  byId("detail").showModal();
}

function togglePause() {
  const pausing = !views.results.frozen;
  for (const view of Object.values(views)) pausing ? view.pause() : view.resume();
  schedule();
}

function applyFilter() {
  const input = byId("filter");
  try {
    const matches = compile(input.value);
    for (const view of Object.values(views)) view.filter(matches);
    input.removeAttribute("aria-invalid");
    write(byId("filter-error"), "");
    announce(`${views.results.length} results and ${views.failures.length} failures match`);
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    input.setAttribute("aria-invalid", "true");
    write(byId("filter-error"), error.message);
  }
  schedule();
}

function escape() {
  if (document.activeElement === byId("filter")) {
    byId("filter").value = "";
    applyFilter();
    byId("results").focus();
  } else dismissToasts();
}

function onState(state, words, filled) {
  if (connection.state === state) return;
  const nowMs = Date.now();
  if (state === "connected" && connection.lostAtMs) {
    views.results.add(gap(connection.lostAtMs, nowMs, filled));
    connection.lostAtMs = undefined;
  }
  if (connection.state === "connected") connection.lostAtMs = nowMs;
  Object.assign(connection, { state, sinceMs: nowMs });
  byId("connection").dataset.state = state;
  byId("state").textContent = words;
  drawSince(connection);
  schedule();
}

function gap(fromMs, toMs, { missed, complete }) {
  const span = `from ${clock(fromMs)} to ${clock(toMs)} (${duration(toMs - fromMs)})`;
  const all = complete ? "all that came then is here" : `what came then is not here${missed ? ", but for the last" : ""}`;
  const request = `not connected ${span}; ${all}${missed ? ` (${missed})` : ""}`;
  return { kind: "gap", request, class: "", confidence: null, ms: null, atMs: toMs, doc: { gap: request } };
}

function onResults(payload) {
  const nowMs = performance.now();
  seen["public:results"].arrived(payload, nowMs);
  for (const record of results(payload, Date.now())) {
    series.result(record.ms, nowMs);
    views.results.add(record);
  }
  schedule();
}

function onFailed(payload) {
  const record = failure(payload, Date.now());
  seen["public:alerts"].arrived(payload, performance.now());
  series.failure(performance.now());
  views.failures.add(record);
  onFailure(record, performance.now());
  schedule();
}

function onRule(payload) {
  onAlert(alert(payload, Date.now()));
  schedule();
}

function followNewest() {
  grids.results.follow();
  grids.failures.follow();
}

useStoredTheme();
byId("pause").addEventListener("click", togglePause);
byId("newest").addEventListener("click", followNewest);
byId("theme").addEventListener("click", nextTheme);
byId("help").addEventListener("click", () => byId("manual").showModal());
byId("filter").addEventListener("input", applyFilter);
listenForKeys({
  " ": togglePause,
  "/": () => byId("filter").focus(),
  f: followNewest,
  t: nextTheme,
  "?": () => byId("manual").showModal(),
  Escape: escape,
});
const say = connect({
  on: {
    "public:results": { new_result: onResults, new_results: onResults },
    "public:alerts": { inference_failed: onFailed, alert: onRule },
  },
  onState,
});
setInterval(tick, 1000);
tick();
