// What a screen reader is told: rules that fire at once, everything else now and then.

import { byId } from "./element.mjs";

const QUIET_MS = 5000;
let spokeAtMs = -QUIET_MS;
let next = "";
let timer = 0;

export function announce(words) {
  next = words;
  if (timer) return;
  timer = setTimeout(say, Math.max(0, spokeAtMs + QUIET_MS - performance.now()));
}

export function announceNow(words) {
  byId("urgent").textContent = words;
}

function say() {
  timer = 0;
  spokeAtMs = performance.now();
  byId("polite").textContent = next;
}
