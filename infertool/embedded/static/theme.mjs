// Light, dark, or what the system says.

import { byId } from "./element.mjs";

const STORED = "infertool.theme";
const THEMES = ["auto", "light", "dark"];

export function nextTheme() {
  use(THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length]);
}

export function useStoredTheme() {
  use(current());
}

function current() {
  const stored = localStorage.getItem(STORED);
  return THEMES.includes(stored) ? stored : "auto";
}

function use(theme) {
  localStorage.setItem(STORED, theme);
  document.documentElement.dataset.theme = theme;
  byId("theme").lastElementChild.textContent = theme;
}
