// From an event of anybody to a record the page can keep: bounded in size, and safe to read, whatever came.

const MAX_VALUES = 200;
const MAX_CHARACTERS = 4000;
const MAX_DEPTH = 8;
const MAX_TEXT = 300;
const CUT = "…";
// Control characters, and those that turn the direction of the text around them.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

// The records of a `new_result` or `new_results` payload. What is no batch counts as one result.
export function results(payload, arrivedMs) {
  const batch = Array.isArray(payload?.results) ? payload.results : [payload];
  return batch.map((document) => result(document, arrivedMs));
}

function result(payload, arrivedMs) {
  const doc = sketch(payload);
  const prediction = doc?.prediction;
  const named = isObject(prediction) ? prediction.class ?? prediction.value : prediction;
  return {
    kind: "result",
    request: text(doc?.request_id ?? doc?.event_id),
    class: text(named),
    confidence: number(prediction?.confidence),
    ms: number(doc?.processing_ms),
    atMs: time(doc?.completed_at, arrivedMs),
    doc,
  };
}

export function failure(payload, arrivedMs) {
  const doc = sketch(payload);
  return {
    kind: "failure",
    request: text(doc?.request_id ?? doc?.event_id),
    type: text(doc?.error_type) || "failure",
    error: text(doc?.error),
    ms: number(doc?.processing_ms),
    atMs: time(doc?.failed_at, arrivedMs),
    doc,
  };
}

// An alert rule's state. Every state but "resolved" counts as firing: better one alert too many.
export function alert(payload, arrivedMs) {
  const doc = sketch(payload);
  return {
    rule: text(doc?.rule) || "alert",
    state: doc?.state === "resolved" ? "resolved" : "firing",
    value: text(doc?.value),
    threshold: text(doc?.threshold),
    sinceMs: time(doc?.since, arrivedMs),
  };
}

// A copy of some JSON with at most 200 values, 4000 characters and 8 levels; the mark … stands for what was cut.
export function sketch(value) {
  return copy(value, 0, { values: MAX_VALUES, characters: MAX_CHARACTERS });
}

function copy(value, depth, left) {
  left.values -= 1;
  if (typeof value === "string") return cut(value, left);
  if (value === null || typeof value !== "object") return value;
  if (depth === MAX_DEPTH) return CUT;
  return Array.isArray(value) ? copyArray(value, depth, left) : copyObject(value, depth, left);
}

function copyArray(array, depth, left) {
  const copied = [];
  for (const item of array) {
    if (isSpent(left)) {
      copied.push(CUT);
      break;
    }
    copied.push(copy(item, depth + 1, left));
  }
  return copied;
}

function copyObject(object, depth, left) {
  const copied = Object.create(null); // so that a key `__proto__` is a key
  for (const key in object) {
    if (isSpent(left)) {
      copied[CUT] = CUT;
      break;
    }
    copied[cut(key, left)] = copy(object[key], depth + 1, left);
  }
  return copied;
}

function isSpent(left) {
  return left.values <= 0 || left.characters <= 0;
}

function cut(string, left) {
  const room = Math.max(0, left.characters);
  left.characters -= string.length;
  return string.length > room ? string.slice(0, room) + CUT : string;
}

// Any JSON as a short text in one line.
export function text(value) {
  if (value === undefined || value === null) return "";
  const whole = typeof value === "string" ? value : JSON.stringify(value);
  return visible(whole.length > MAX_TEXT ? whole.slice(0, MAX_TEXT) + CUT : whole);
}

// Control characters as their symbols, and what would turn the writing direction of others as a replacement character.
export function visible(string) {
  return string.replace(INVISIBLE, (character) => {
    const code = character.codePointAt(0);
    return code < 0x20 ? String.fromCodePoint(0x2400 + code) : "\ufffd";
  });
}

export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function time(stamp, otherwiseMs) {
  const ms = typeof stamp === "string" ? Date.parse(stamp) : Number.NaN;
  return Number.isNaN(ms) ? otherwiseMs : ms;
}
