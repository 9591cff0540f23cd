// Alert rules and failures as they are told: a line for each rule, and toasts for what is new. Drawn once a frame.

import { announce, announceNow } from "./announce.mjs";
import { byId, element } from "./element.mjs";
import { clock, count } from "./format.mjs";
import { toast } from "./toasts.mjs";

const MAX_RULES = 50;
const MAX_WAVES = 50;
// A wave of failures of one type is told while it is new, and again after it was quiet for a while.
const NEW_MS = 8000;
const QUIET_MS = 60000;

const rules = new Map();
const waves = new Map();
const news = { rules: new Set(), waves: new Set() };

export function onAlert(alert) {
  rules.delete(alert.rule); // so that the latest is the last
  rules.set(alert.rule, alert);
  news.rules.add(alert.rule);
  if (rules.size > MAX_RULES) forget(leastImportant(), rules, news.rules);
}

export function onFailure(failure, nowMs) {
  let wave = waves.get(failure.type);
  if (!wave || nowMs > wave.lastMs + QUIET_MS) wave = { count: 0, firstMs: nowMs };
  Object.assign(wave, { count: wave.count + 1, lastMs: nowMs, failure });
  waves.delete(failure.type);
  waves.set(failure.type, wave);
  if (nowMs < wave.firstMs + NEW_MS) news.waves.add(failure.type);
  if (waves.size > MAX_WAVES) forget(waves.keys().next().value, waves, news.waves);
}

function forget(name, ...places) {
  for (const place of places) place.delete(name);
}

export function drawAlerts() {
  for (const rule of news.rules) tellRule(rules.get(rule));
  if (news.rules.size) drawRules();
  for (const type of news.waves) tellWave(waves.get(type));
  news.rules.clear();
  news.waves.clear();
}

function tellRule(alert) {
  const detail = measured(alert);
  toast({ key: `rule ${alert.rule}`, kind: alert.state, title: `${alert.rule}: ${alert.state}`, detail });
  const tell = alert.state === "firing" ? announceNow : announce;
  tell(`Alert ${alert.rule}: ${alert.state}. ${detail}`);
}

function tellWave({ count: failures, failure }) {
  const title = failures === 1 ? failure.type : `${count(failures)} × ${failure.type}`;
  toast({ key: `failure ${failure.type}`, kind: "failed", title, detail: failure.error });
  announce(`Failed: ${title}`);
}

function leastImportant() {
  const all = [...rules.values()];
  return (all.find((alert) => alert.state === "resolved") ?? all[0]).rule;
}

function measured({ value, threshold }) {
  return [value && `value ${value}`, threshold && `threshold ${threshold}`].filter(Boolean).join(", ");
}

function drawRules() {
  const newestFirst = [...rules.values()].reverse();
  const firing = newestFirst.filter((alert) => alert.state === "firing");
  const resolved = newestFirst.filter((alert) => alert.state === "resolved");
  byId("rules").replaceChildren(...[...firing, ...resolved].map(ruleItem));
  byId("no-rules").hidden = true;
  document.title = firing.length ? `${firing.length} firing · infertool` : "infertool dashboard";
}

function ruleItem(alert) {
  const item = element("li", "rule");
  item.dataset.kind = alert.state;
  const name = element("strong", "", alert.rule);
  name.dir = "auto";
  item.append(
    element("span", "state", alert.state),
    name,
    element("span", "measured", measured(alert)),
    element("span", "since", `since ${clock(alert.sinceMs)}`),
  );
  return item;
}
