// Elements whose content is text, never HTML.

export const byId = (id) => document.getElementById(id);

export function element(name, className, content = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = content;
  return made;
}

// Writes a text only where it changes, so that nothing is laid out or read out for nothing.
export function write(place, content) {
  if (place.textContent !== content) place.textContent = content;
}
