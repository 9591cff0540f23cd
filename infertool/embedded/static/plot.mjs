// Five minutes as SVG paths; colours and line widths are the style sheet's.

const HEIGHT = 100;
const STEPS = [1, 2, 5, 10];

export function drawThroughput(svg, points) {
  const all = points.map((point) => (point ? point.results + point.failures : 0));
  const failures = points.map((point) => point?.failures ?? 0);
  const top = ceiling(Math.max(...all));
  path(svg, "all", area(all, top));
  path(svg, "failed", area(failures, top));
  return top;
}

export function drawLatency(svg, points) {
  const p50 = points.map((point) => point?.p50 ?? null);
  const p99 = points.map((point) => point?.p99 ?? null);
  const top = ceiling(Math.max(...p99));
  path(svg, "p99", line(p99, top));
  path(svg, "p50", line(p50, top));
  return top;
}

// The next round number.
export function ceiling(value) {
  if (value <= 1) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return STEPS.map((step) => step * unit).find((round) => round >= value);
}

function path(svg, name, shape) {
  svg.querySelector(`.${name}`).setAttribute("d", shape);
}

// Each run of seconds with events is a shape of its own, so that nothing is drawn where nothing was.
function area(values, top) {
  return values
    .map((value, second) => {
      if (value === 0) return "";
      const begin = values[second - 1] ? "" : `M${second} ${HEIGHT}`;
      const end = values[second + 1] ? "" : `L${second} ${HEIGHT}Z`;
      return `${begin}L${second} ${y(value, top)}${end}`;
    })
    .join("");
}

// Seconds without a measure are no part of the line; one between two such is a dot.
function line(values, top) {
  return values
    .map((value, second) => {
      if (value === null) return "";
      return `${values[second - 1] == null ? `M${second} ${y(value, top)}` : ""}L${second} ${y(value, top)}`;
    })
    .join("");
}

function y(value, top) {
  return (HEIGHT - (value / top) * HEIGHT).toFixed(1);
}
