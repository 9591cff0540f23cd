// Shortcuts of one key; they can be switched off, since a screen reader or a voice may type them by accident.

import { byId } from "./element.mjs";

const STORED = "infertool.shortcuts";

export function listenForKeys(actions) {
  const box = byId("shortcuts");
  box.checked = localStorage.getItem(STORED) !== "off";
  box.addEventListener("change", () => localStorage.setItem(STORED, box.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in actions)) return;
    if (document.querySelector("dialog[open]") || isTaken(event)) return;
    if (event.key !== "Escape" && !box.checked) return;
    event.preventDefault();
    actions[event.key]();
  });
}

// Whether what has the focus uses the key itself.
function isTaken({ target, key }) {
  if (target.matches("input")) return key !== "Escape";
  return target.matches("button, summary, a") && key === " ";
}
