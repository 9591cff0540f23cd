// Numbers and times as people read them.

export function count(value) {
  return value.toLocaleString("en");
}

export function rate(perSecond) {
  return perSecond >= 10 ? count(Math.round(perSecond)) : perSecond.toFixed(1);
}

export function decimal(value, digits) {
  if (value === null) return "";
  return Math.abs(value) < 1e6 ? value.toFixed(digits) : value.toExponential(1);
}

export function clock(ms) {
  const date = new Date(ms);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

// How long something lasts, in its largest two units.
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
