// The page's filter language. All terms must match:
//
//   word  "two words"      occurs in request, class, error or its type; case does not count
//   class:text             the field contains the text
//   class=A  class!=A      the field is, is not
//   confidence<0.8  ms>=300  a number compares
//   -term                  does not match
//
// Fields are request, class, confidence, ms, error, type, or a path into the event: original_payload.customer=7.

import { isObject, text } from "./feed.mjs";

const TERM = /(?:[^\s"]|"[^"]*")+/g;
const FIELD_TERM = /^([A-Za-z_][\w.-]*)(!=|<=|>=|[:=<>])(.*)$/s;
const COLUMNS = new Set(["request", "class", "confidence", "ms", "error", "type"]);
const WORDS = ["request", "class", "error", "type"];

const COMPARISONS = {
  ":": (value, wanted) => lower(value).includes(wanted.toLowerCase()),
  "=": equals,
  "!=": (value, wanted) => !equals(value, wanted),
  "<": (value, wanted) => typeof value === "number" && value < wanted,
  "<=": (value, wanted) => typeof value === "number" && value <= wanted,
  ">": (value, wanted) => typeof value === "number" && value > wanted,
  ">=": (value, wanted) => typeof value === "number" && value >= wanted,
};

// A filter that cannot be understood; the message says why.
export class FilterError extends Error {}

// A function from a record to whether it matches. Throws FilterError.
export function compile(filter) {
  if ((filter.split('"').length - 1) % 2) throw new FilterError("a quote is not closed");
  const tests = (filter.match(TERM) ?? []).map(term);
  return (record) => record.kind === "gap" || tests.every((test) => test(record));
}

function term(whole) {
  const negated = whole.startsWith("-") && whole.length > 1;
  const positive = negated ? whole.slice(1) : whole;
  const test = fieldTest(positive) ?? wordTest(unquoted(positive).toLowerCase());
  return negated ? (record) => !test(record) : test;
}

function wordTest(word) {
  return (record) => WORDS.some((column) => record[column]?.toLowerCase().includes(word));
}

function fieldTest(positive) {
  const [, name, operator, written] = FIELD_TERM.exec(positive) ?? [];
  if (!operator) return null;
  const wanted = unquoted(written);
  if (wanted === "") throw new FilterError(`${name}${operator} needs a value`);
  if (/[<>]/.test(operator) && Number.isNaN(Number(wanted))) throw new FilterError(`“${wanted}” is not a number`);
  const value = reader(name);
  const compare = COMPARISONS[operator];
  const other = /[<>]/.test(operator) ? Number(wanted) : wanted;
  return (record) => compare(value(record), other);
}

function reader(name) {
  if (COLUMNS.has(name)) return (record) => record[name];
  const path = name.split(".");
  return (record) => path.reduce(step, record.doc);
}

function step(value, key) {
  return (isObject(value) && key in value) || (Array.isArray(value) && /^\d+$/.test(key)) ? value[key] : undefined;
}

function equals(value, wanted) {
  return typeof value === "number" ? value === Number(wanted) : lower(value) === wanted.toLowerCase();
}

function lower(value) {
  return text(value).toLowerCase();
}

function unquoted(written) {
  return written.replaceAll('"', "");
}
