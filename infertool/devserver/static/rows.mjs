// What a row of each list says.

import { element } from "./element.mjs";
import { clock, decimal } from "./format.mjs";

const HUES = 5;

export function fillResult(row, record) {
  const [request, kind, confidence, ms, time] = row.cells;
  row.className = record.kind;
  request.textContent = record.request;
  request.title = record.request;
  kind.replaceChildren(...(record.class ? [badge(record.class)] : []));
  confidence.replaceChildren(...(record.confidence === null ? [] : bar(record.confidence)));
  ms.textContent = decimal(record.ms, 1);
  time.textContent = record.kind === "gap" ? "" : clock(record.atMs);
}

export function fillFailure(row, record) {
  const [what, whose] = row.cells;
  what.replaceChildren(element("strong", "", record.type), element("span", "", record.error));
  what.title = record.error;
  whose.replaceChildren(element("time", "", clock(record.atMs)), element("span", "request", record.request));
  whose.title = record.request;
}

function badge(name) {
  const made = element("span", "badge", name);
  made.dataset.hue = String([...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % HUES);
  return made;
}

function bar(confidence) {
  const whole = element("span", "bar");
  const filled = element("i");
  filled.style.setProperty("--share", String(Math.min(1, Math.max(0, confidence))));
  whole.append(filled);
  return [whole, element("span", "", decimal(confidence, 3))];
}
