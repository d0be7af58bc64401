// Values of columns: between JSON, what is typed into a field, and what is shown.
//
// Integers beyond 2^53 (ids are often hashes) do not fit a JavaScript number. They are BigInt
// here, on the way in and on the way out, so that the server gets the digits that are shown.

/** Something typed does not fit the type of its column. */
export class ValueError extends Error {}

/** Parses JSON and keeps all digits of large integers where the browser can. */
export function parseJson(text) {
  return JSON.parse(text, (key, value, context) => {
    if (value === Infinity || value === -Infinity) throw new SyntaxError("too large a number");
    const isLarge = typeof value === "number" && Number.isInteger(value)
      && !Number.isSafeInteger(value);
    return isLarge && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

/** Writes JSON on one line, with BigInt as integers. */
export function dumpJson(value) {
  if (typeof value === "bigint") return value.toString();
  if (Array.isArray(value)) return `[${value.map(dumpJson).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    const pairs = Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${dumpJson(v)}`);
    return `{${pairs.join(", ")}}`;
  }
  return JSON.stringify(value ?? null);
}

/** What a type of Arrow takes in a field: "int", "float", "bool", "text", "any" or "json". */
export function kindOf(type) {
  if (type === "any") return "any";
  if (/^u?int\d+$/.test(type)) return "int";
  if (/^(float|double|halffloat|float16|float32|float64)$/.test(type)) return "float";
  if (type === "bool") return "bool";
  if (/^(large_)?(string|utf8)$/.test(type)) return "text";
  return "json";
}

/** A type as people say it: `list<item: int64>` is "list of int64". */
export function typeName(type) {
  return type.replace(/list<(?:\w+: )?(.*)>/, (_, inner) => `list of ${typeName(inner)}`)
    .replaceAll("large_", "");
}

// Control characters separate the values of a text; a field cannot show them. They are written
// as the pictures that Unicode has for them.
const PICTURES = 0x2400;
const show = (text) => text.replace(
  /[\u0000-\u001f]/g, (c) => String.fromCharCode(PICTURES + c.charCodeAt(0)),
);
const unshow = (text) => text.replace(
  /[\u2400-\u241f]/g, (c) => String.fromCharCode(c.charCodeAt(0) - PICTURES),
);

/** What a field shows of a value; nothing for a missing one, "" for an empty text. */
export function toText(value, type) {
  if (value === null || value === undefined) return "";
  if (kindOf(type) === "text" && typeof value === "string") {
    return value === "" ? '""' : show(value);
  }
  // Where any type goes, a text stands as it is unless it would be read as something else.
  if (kindOf(type) === "any" && typeof value === "string" && value && !isJson(value)) {
    return show(value);
  }
  return dumpJson(value);
}

function isJson(text) {
  try {
    parseJson(text);
    return true;
  } catch {
    return false;
  }
}

/** What a field means. Raises ValueError, with what would be right. */
export function fromText(text, type) {
  const kind = kindOf(type);
  if (kind === "text") {
    if (text === "") return null;
    return text === '""' ? "" : unshow(text);
  }
  const plain = text.trim();
  if (plain === "") return null;
  if (kind === "int") {
    if (!/^[+-]?\d+$/.test(plain)) throw new ValueError(`${plain} is not a whole number`);
    const large = BigInt(plain.replace(/^\+/, ""));
    const small = Number(large);
    return Number.isSafeInteger(small) ? small : large;
  }
  if (kind === "float") {
    const number = Number(plain);
    if (!Number.isFinite(number)) throw new ValueError(`${plain} is not a number`);
    return number;
  }
  if (kind === "bool") {
    if (plain !== "true" && plain !== "false") throw new ValueError("write true or false");
    return plain === "true";
  }
  try {
    return parseJson(plain);
  } catch {
    if (kind === "any") return unshow(text);
    throw new ValueError(`write it as JSON, for example ${exampleOf(type)}`);
  }
}

function exampleOf(type) {
  if (/^(map|struct)/.test(type)) return '{"a": 1}';
  return /string|utf8/.test(type) ? '["a", "b"]' : "[1, 2]";
}

/** A number as short as it can be without lying about its size. */
export function shortNumber(value) {
  if (typeof value === "bigint" || Number.isInteger(value)) return String(value);
  if (typeof value !== "number") return dumpJson(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-4 || size >= 1e6) ? value.toExponential(4) : value.toFixed(5);
}

/** A text for a POSIX shell. */
export function shellQuote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
