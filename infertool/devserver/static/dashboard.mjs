// The page. Events are drawn once a frame, as text and never as HTML.

import { Socket } from "/vendor/phoenix.mjs";
import { alert, failure, Newest, Rate, result } from "/feed.mjs";

const MAX_RESULTS = 200;
const MAX_ALERTS = 100;
const HUES = 5;
// Nobody reads faster, and the time between belongs to scrolling and typing.
const MIN_DRAW_INTERVAL_MS = 200;

const byId = (id) => document.getElementById(id);
const rate = new Rate();
const newResults = new Newest(MAX_RESULTS);
const newAlerts = new Newest(MAX_ALERTS);
const totals = { results: 0, failures: 0, ms: 0, timed: 0 };
let scheduled = false;
let lastDrawn = 0;

function schedule() {
  if (scheduled) return;
  scheduled = true;
  const waitMs = lastDrawn + MIN_DRAW_INTERVAL_MS - performance.now();
  if (waitMs > 0) setTimeout(requestAnimationFrame, waitMs, draw);
  else requestAnimationFrame(draw);
}

function draw() {
  scheduled = false;
  lastDrawn = performance.now();
  prepend(byId("results"), newResults.take().map(resultRow), MAX_RESULTS);
  prepend(byId("alerts"), newAlerts.take().map(alertItem), MAX_ALERTS);
  byId("no-results").hidden = totals.results > 0;
  byId("no-alerts").hidden = byId("alerts").childElementCount > 0;
  drawFigures();
}

function drawFigures() {
  const perSecond = rate.perSecond(performance.now());
  byId("rate").textContent = perSecond >= 10 ? Math.round(perSecond).toLocaleString("en") : perSecond.toFixed(1);
  byId("results-total").textContent = totals.results.toLocaleString("en");
  byId("failures-total").textContent = totals.failures.toLocaleString("en");
  byId("mean").textContent = totals.timed ? (totals.ms / totals.timed).toFixed(1) : "–";
}

function prepend(list, elements, limit) {
  if (!elements.length) return;
  list.prepend(...elements.reverse());
  while (list.childElementCount > limit) list.lastElementChild.remove();
}

function element(name, className, content = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = content;
  return made;
}

function resultRow(row) {
  const line = element("tr");
  const request = element("td", "", row.request);
  request.title = row.request;
  const kind = element("td");
  if (row.class) kind.append(badge(row.class));
  const ms = element("td", "number", row.ms === null ? "" : row.ms.toFixed(1));
  line.append(request, kind, confidenceCell(row.confidence), ms, element("td", "number time", row.time));
  return line;
}

function badge(name) {
  const made = element("span", "badge", name);
  made.dataset.hue = String([...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % HUES);
  return made;
}

function confidenceCell(confidence) {
  const cell = element("td");
  if (confidence === null) return cell;
  const bar = element("span", "bar");
  const filled = element("i");
  filled.style.setProperty("--share", String(Math.min(1, Math.max(0, confidence))));
  bar.append(filled);
  cell.append(bar, confidence.toFixed(3));
  return cell;
}

function alertItem(row) {
  const item = element("li", "alert");
  item.dataset.kind = row.kind;
  const head = element("p", "head");
  head.append(element("span", "", row.title), element("time", "", row.time));
  const detail = element("p", "", row.detail);
  detail.title = row.detail;
  item.append(head, detail);
  if (row.request) item.append(element("p", "request", row.request));
  return item;
}

function onResult(payload) {
  const row = result(payload, new Date());
  totals.results += 1;
  if (row.ms !== null) {
    totals.ms += row.ms;
    totals.timed += 1;
  }
  newResults.add(row);
  rate.count(performance.now());
  schedule();
}

function onAlert(row) {
  newAlerts.add(row);
  rate.count(performance.now());
  schedule();
}

function onFailure(payload) {
  totals.failures += 1;
  onAlert(failure(payload, new Date()));
}

function show(state, words) {
  const place = byId("connection");
  if (place.dataset.state === state) return;
  place.dataset.state = state;
  place.textContent = words;
}

const socket = new Socket("/socket", { heartbeatIntervalMs: 15000 });
socket.onClose(() => show("disconnected", "disconnected, trying again"));
socket.onError(() => show("disconnected", "disconnected, trying again"));

const results = socket.channel("public:results");
results.on("new_result", onResult);
results.join().receive("ok", () => show("connected", "connected"));
results.onError(() => show("disconnected", "disconnected, trying again"));

const alerts = socket.channel("public:alerts");
alerts.on("inference_failed", onFailure);
alerts.on("alert", (payload) => onAlert(alert(payload, new Date())));
alerts.join();

socket.connect();
setInterval(drawFigures, 500);
