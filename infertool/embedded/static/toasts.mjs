// Short notes about failures and alerts, at most three. One with the same key takes the place of the last; while the
// pointer or the focus is on them, none leaves.

import { byId, element } from "./element.mjs";

const MAX_TOASTS = 3;
const STAY_MS = 8000;

const place = byId("toasts");

export function toast({ key, kind, title, detail }) {
  let card = [...place.children].find((one) => one.dataset.key === key);
  if (!card) {
    card = make(key);
    place.prepend(card);
    if (place.childElementCount > MAX_TOASTS) place.lastElementChild.remove();
  }
  card.dataset.kind = kind;
  card.querySelector("strong").textContent = title;
  card.querySelector("span").textContent = detail;
  card.leavesAtMs = performance.now() + STAY_MS;
}

export function dismissToasts() {
  place.replaceChildren();
}

// Takes away those whose time is over.
export function sweepToasts(nowMs) {
  if (place.matches(":hover, :focus-within")) return;
  for (const card of [...place.children]) if (card.leavesAtMs <= nowMs) card.remove();
}

function make(key) {
  const card = element("li", "toast");
  const words = element("p");
  words.append(element("strong"), element("span"));
  words.dir = "auto";
  const close = element("button", "plain", "×");
  close.type = "button";
  close.setAttribute("aria-label", "Dismiss");
  close.addEventListener("click", () => card.remove());
  card.append(words, close);
  card.dataset.key = key;
  return card;
}
