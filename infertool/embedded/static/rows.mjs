// What a row of each list says. A row is made once and filled again and again, so it is cheap to fill.

import { element, write } from "./element.mjs";
import { clock, decimal } from "./format.mjs";

const HUES = 5;

export function makeResult(row) {
  const [, kind, confidence] = row.cells;
  kind.append(element("span", "badge"));
  const bar = element("span", "bar");
  bar.append(element("i"));
  confidence.append(bar, element("span"));
}

export function fillResult(row, record) {
  const [request, kind, confidence, ms, time] = row.cells;
  row.className = record.kind;
  write(request, record.request);
  request.title = record.request;
  fillBadge(kind.firstChild, record.class);
  fillBar(confidence.firstChild, record.confidence);
  write(confidence.lastChild, decimal(record.confidence, 3));
  write(ms, decimal(record.ms, 1));
  write(time, record.kind === "gap" ? "" : clock(record.atMs));
}

export function makeFailure(row) {
  const [what, whose] = row.cells;
  what.append(element("strong"), element("span"));
  whose.append(element("time"), element("span", "request"));
}

export function fillFailure(row, record) {
  const [what, whose] = row.cells;
  write(what.firstChild, record.type);
  write(what.lastChild, record.error);
  what.title = record.error;
  write(whose.firstChild, clock(record.atMs));
  write(whose.lastChild, record.request);
  whose.title = record.request;
}

function fillBadge(badge, name) {
  write(badge, name);
  badge.hidden = name === "";
  badge.dataset.hue = String([...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % HUES);
}

function fillBar(bar, confidence) {
  bar.hidden = confidence === null;
  if (confidence !== null) bar.firstChild.style.setProperty("--share", String(Math.min(1, Math.max(0, confidence))));
}
